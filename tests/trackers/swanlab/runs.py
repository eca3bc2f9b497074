"""What the SwanLab tests share: trackers as a lane has them, and models that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asynccb._journal.uploads import Kept
from asynccb._state.run_description import RunDescription
from asynccb.trackers.swanlab import SwanLabCallback
from tests.trackers import lane
from tests.trackers.lane import description


def tracker(run: RunDescription | None = None, **settings: Any) -> SwanLabCallback:
    """Return a tracker that has been told what the run is like."""
    made = SwanLabCallback(**{"project": "proj", **settings})
    made.describe(run or description())
    return made


async def kept(folder: Path, step: int = 2, **files: bytes) -> Kept:
    """Return a checkpoint as it waits to be uploaded; `a__b` stands for the path a/b."""
    return await lane.kept(SwanLabCallback(log_model="checkpoint"), folder, step, files)
