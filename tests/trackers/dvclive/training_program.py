"""Train with a DVCLive tracker until killed within a step: DIRECTORY STEP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import asynccb
from tests.decisions.deciding_training import Dies
from tests.trackers import trainings


def go_on(directory: Path, kill_at: int = 0, **given: Any) -> asynccb.Trainer:
    """Go on in the tables of the folder `live`; die in the middle of a step."""
    tracker = asynccb.DVCLiveCallback(dir=directory / "live", dvcyaml=None)
    return trainings.go_on(directory, tracker, Dies(kill_at), **trainings.EVALUATED, **given)


if __name__ == "__main__":
    go_on(Path(sys.argv[1]), int(sys.argv[2]))
