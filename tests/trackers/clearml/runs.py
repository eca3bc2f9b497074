"""What the ClearML tests share: trackers as a lane has them, and folders that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asynccb._journal.uploads import Folder, Kept, Spool
from asynccb._state.run_description import RunDescription
from asynccb.trackers.clearml import ClearMLCallback
from tests.trackers.lane import description


def tracker(run: RunDescription | None = None, **settings: Any) -> ClearMLCallback:
    """Return a tracker that has been told what the run is like."""
    made = ClearMLCallback(**{"project": "proj", **settings})
    made.describe(run if run is not None else description())
    return made


async def kept(root: Path, name: str, step: int, files: dict[str, bytes]) -> Kept:
    """Keep a folder of files, as the spool of a lane does."""
    folder = root / f"{name}-{step}"
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (root / f"spool-{step}").mkdir(parents=True, exist_ok=True)
    spool = Spool(root / f"spool-{step}" / "lane")
    await spool.open()
    await spool.keep(1, step, Folder(folder, name))
    return await spool.first()
