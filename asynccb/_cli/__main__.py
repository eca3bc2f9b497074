"""`python -m asynccb._cli`, where the command itself is not installed."""

import sys

from asynccb._cli import main

sys.exit(main())
