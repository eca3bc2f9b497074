"""Train with callbacks that decide, and be killed in the middle of a step: DIRECTORY STEP."""

from __future__ import annotations

import sys
from pathlib import Path

from deciding_training import go_on

go_on(Path(sys.argv[1]), int(sys.argv[2]))
