"""Train with trackers until killed within a step: DIRECTORY URI EXPERIMENT STEP FROM."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.trackers.tracked_training import go_on

directory, uri, experiment, step, resume = sys.argv[1:]
go_on(Path(directory), uri, experiment, int(step), resume=int(resume) or None)
