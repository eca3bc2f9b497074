"""What the MLflow tests share: records of a run, and a lane that hands them to a tracker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from asynccb._state.control import TrainerControl
from asynccb._state.run_description import ModelDescription, PlainArguments, RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.trackers.mlflow import MLflowCallback

START = 1_795_000_000_000_000_000
"""Unix nanoseconds at which the runs of the tests begin."""


@dataclass
class Emitted:
    """One event, as the journal has it."""

    event: str
    step: int
    time: int
    extra: dict[str, Any] = field(default_factory=dict)


def description(**args: Any) -> RunDescription:
    return RunDescription(
        key=uuid.uuid4().hex,
        started=START,
        args=PlainArguments({"learning_rate": 5e-4, **args}),
        model=ModelDescription("Net", {"hidden": 8, "learning_rate": 1.0}, 10, 10),
        user="ada",
        script="train.py",
    )


def training(steps: int, first: int = 1) -> list[Emitted]:
    """Return a training that logs two values at every step, 1.5 ms apart."""
    return [emitted("on_train_begin", first - 1), *logging(steps, first)]


def logging(steps: int, first: int = 1) -> list[Emitted]:
    return [
        emitted("on_log", step, logs={"loss": 1 / step, "learning_rate": 0.1 * step})
        for step in range(first, first + steps)
    ]


def emitted(event: str, step: int, **extra: Any) -> Emitted:
    return Emitted(event, step, START + step * 1_500_000, extra)


def expected(records: Iterable[Emitted], key: str) -> list[tuple[int, float, int]]:
    """Return the points that the server must have, as it returns them."""
    return [
        (record.step, record.extra["logs"][key], record.time // 1_000_000)
        for record in records
        if key in record.extra.get("logs", {})
    ]


async def play(tracker: MLflowCallback, records: Iterable[Emitted]) -> None:
    """Hand over the records as a lane does."""
    for record in records:
        tracker.time = record.time
        state = TrainerState(global_step=record.step)
        hook = getattr(tracker, record.event)
        await hook(tracker.run.args, state, TrainerControl(), **record.extra)


async def deliver(tracker: MLflowCallback, records: Iterable[Emitted]) -> str:
    """Play the records, flush, and return the id of the run."""
    await play(tracker, records)
    await tracker.flush()
    return run_id(tracker)


def run_id(tracker: MLflowCallback) -> str:
    found: str = tracker.state()["attributes"]["run_info"]["run_id"]
    return found


def revived(state: dict[str, Any], run: RunDescription) -> MLflowCallback:
    """Return the tracker that a new companion builds from what was kept on disk."""
    tracker = MLflowCallback.from_state(json.loads(json.dumps(state)))
    tracker.describe(run)
    return tracker
