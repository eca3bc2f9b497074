"""Train with two trackers until killed within a step: DIRECTORY URI EXPERIMENT STEP FROM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import asynccb
from tests.decisions.deciding_training import Dies
from tests.trackers import trainings


def go_on(
    directory: Path, uri: str, experiment: str, kill_at: int = 0, **given: Any
) -> asynccb.Trainer:
    """Go on in the run of an experiment; die in the middle of a step."""
    return trainings.go_on(
        directory,
        asynccb.MLflowCallback(tracking_uri=uri, experiment_name=experiment),
        asynccb.TensorBoardCallback(),
        Dies(kill_at),
        **trainings.EVALUATED,
        **given,
    )


if __name__ == "__main__":
    directory, uri, experiment, step, resume = sys.argv[1:]
    go_on(Path(directory), uri, experiment, int(step), resume=int(resume) or None)
