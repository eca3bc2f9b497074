"""`python -m asynccb`: the command `asynccb`, with this interpreter and without a `PATH`."""

import sys

from asynccb._cli import main

if __name__ == "__main__":
    sys.exit(main())
