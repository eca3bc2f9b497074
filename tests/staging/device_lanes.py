"""Callbacks that keep what reached them, for runs on a device."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import asynccb


class InCompanion(asynccb.TrainerCallback):
    """Write each log to a file, from the companion."""

    placement = "process"
    needs_history = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []

    async def on_log(self, args, state, control, logs=None, **kwargs):
        with self.path.open("a") as file:
            file.write(json.dumps({**logs, "at": time.time_ns()}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class OnThread(asynccb.TrainerCallback):
    """Keep each log, with its time of arrival, in the training process."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.at: list[int] = []

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.at.append(time.time_ns())
        self.seen.append(logs)
