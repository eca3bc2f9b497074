"""
Two callbacks for the companion that do almost nothing.

They represent trackers that keep up with the training. The companion imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynccb import TrainerCallback


class CountCallback(TrainerCallback):
    """Counts the logged values."""

    placement = "process"
    values = 0

    async def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.values += len(logs or {})


class LatestCallback(TrainerCallback):
    """Keeps the latest value of each name."""

    placement = "process"

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}

    async def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.latest.update(logs or {})
