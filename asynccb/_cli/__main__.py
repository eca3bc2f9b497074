"""`python -m asynccb._cli`, for use if the `asynccb` command is not installed."""

import sys

from asynccb._cli import main

sys.exit(main())
