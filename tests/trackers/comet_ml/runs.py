"""What the Comet tests share: trackers as a lane has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asynccb._journal.uploads import Kept, KeptFile
from asynccb._state.run_description import RunDescription
from asynccb.trackers.comet_ml import CometCallback
from tests.trackers.lane import description


def tracker(run: RunDescription | None = None, **settings: Any) -> CometCallback:
    """Return a tracker that has been told what the run is like."""
    made = CometCallback(**{"project_name": "proj", **settings})
    made.describe(run or description(run_name="mine"))
    return made


def kept(folder: Path, step: int, **contents: bytes) -> Kept:
    """Return files that wait to be uploaded, as the spool has them; `__` in a name is a `/`."""
    files = []
    for key, content in contents.items():
        name = key.replace("__", "/").replace("_", ".")
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append(KeptFile(path, name))
    return Kept(folder, "out", step, files)
