"""Replay the trace that is the first argument, as long as it takes to say so."""

from __future__ import annotations

import sys

from asynccb import CallbackDispatcher, TraceError

try:
    CallbackDispatcher([], replay=sys.argv[1]).close()
    print("replaying")
except TraceError as error:
    print(error)
