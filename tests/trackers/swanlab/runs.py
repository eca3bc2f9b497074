"""What the SwanLab tests share: trackers as a lane has them, and models that wait."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asynccb._ground.events import Event
from asynccb._journal.uploads import Kept, Spool
from asynccb._state.run_description import RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.trackers.swanlab import SwanLabCallback
from tests.trackers.lane import description


def tracker(run: RunDescription | None = None, **settings: Any) -> SwanLabCallback:
    """Return a tracker that has been told what the run is like."""
    made = SwanLabCallback(**{"project": "proj", **settings})
    made.describe(run or description())
    return made


async def kept(folder: Path, step: int = 2, **files: bytes) -> Kept:
    """Return a checkpoint as it waits to be uploaded; `a__b` stands for the path a/b."""
    made = SwanLabCallback(log_model="checkpoint")
    checkpoint = folder / "out" / f"checkpoint-{step}"
    for name, content in files.items():
        path = checkpoint / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    args = description(output_dir=str(folder / "out")).args
    wanted = made.files(Event.SAVE, args, TrainerState(global_step=step))  # type: ignore[arg-type]
    assert wanted is not None
    spool = Spool(folder / "uploads" / os.urandom(4).hex())
    spool._path.parent.mkdir(exist_ok=True)
    await spool.open()
    await spool.keep(step, step, wanted)
    return await spool.first()
