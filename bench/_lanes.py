"""
Two callbacks for lanes in the companion that do next to nothing.

They stand for trackers that keep up; a module of their own because the companion imports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynccb import TrainerCallback


class CountCallback(TrainerCallback):
    """Count the values that were logged."""

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
    """Keep the latest value of each name."""

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
