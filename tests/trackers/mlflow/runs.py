"""What the MLflow tests share: the points of a run, and a tracker as a lane has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from asynccb._state.run_description import RunDescription
from asynccb.trackers.mlflow import MLflowCallback
from tests.trackers.lane import Emitted, play


def expected(records: Iterable[Emitted], key: str) -> list[tuple[int, float, int]]:
    """Return the points that the server must have, as it returns them."""
    return [
        (record.step, record.extra["logs"][key], record.time // 1_000_000)
        for record in records
        if key in record.extra.get("logs", {})
    ]


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
