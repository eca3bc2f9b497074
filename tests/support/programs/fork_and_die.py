"""Fork a child that lives until standard input ends, and die with the companion: DIRECTORY."""

import os
import signal
import sys
import warnings

import asynccb
from tests.support.callbacks_for_tests import FileTracker
from tests.support.running import companion_of

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
run = asynccb.CallbackDispatcher([FileTracker(sys.argv[1] + ".tracked")], directory=sys.argv[1])
run.step(logs={"loss": 1.0})
assert run.flush(20)
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(child, flush=True)
os.kill(companion_of(run).pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
