"""Fork, and start a program, in hooks; the child returns from the hook: DIRECTORY OUTPUT."""

import os
import sys
import time

import asynccb
from tests.support.supervised import Forks, ForksInCompanion

directory, output = sys.argv[1:]
forks, inside = Forks(output), ForksInCompanion(output + ".companion")
run = asynccb.CallbackDispatcher([forks, inside], directory=directory)
for _ in range(20):
    run.step(logs={"loss": 1.0})
    time.sleep(0.005)
print("flushed", run.flush(30), flush=True)
run.close(10)
print("closed", os.getpid(), flush=True)
