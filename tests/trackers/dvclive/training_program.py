"""Train with a DVCLive tracker until killed within a step: DIRECTORY STEP."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.trackers.dvclive.dvc_training import go_on

go_on(Path(sys.argv[1]), int(sys.argv[2]))
