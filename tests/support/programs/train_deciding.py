"""Train with callbacks that decide, and be killed at an event of a step: DIRECTORY STEP EVENT."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.decisions.deciding_training import go_on

go_on(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
