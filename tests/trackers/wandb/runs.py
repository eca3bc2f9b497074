"""What the W&B tests share: trackers as a lane has them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from asynccb._state.run_description import RunDescription
from asynccb.trackers.wandb import WandbCallback
from tests.trackers.lane import Emitted, play


def tracker(run: RunDescription, **settings: Any) -> WandbCallback:
    """Return a tracker that has been told what the run is like, and has no pauses to make."""
    made = WandbCallback(**{"project": "proj", **settings})
    made.describe(run)
    return made


def revived(state: dict[str, Any], run: RunDescription) -> WandbCallback:
    """Return the tracker that a new companion makes of what was kept on disk."""
    args = json.loads(json.dumps(state["args"]))
    attributes = msgspec.msgpack.decode(msgspec.msgpack.encode(state["attributes"]))
    made = WandbCallback.from_state({"args": args, "attributes": attributes})
    made.describe(run)
    return made


async def deliver(made: WandbCallback, records: Iterable[Emitted]) -> None:
    """Play the records and flush."""
    await play(made, records)
    await made.flush()


def lines(records: Iterable[Emitted]) -> list[dict[str, Any]]:
    """Return what the server's history must show of logs, as a chart does."""
    logs = [record for record in records if record.event == "on_log"]
    return [
        {
            **{f"train/{key}": value for key, value in record.extra["logs"].items()},
            "train/global_step": record.step,
            "_step": number,
        }
        for number, record in enumerate(logs)
    ]
