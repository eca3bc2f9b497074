"""Fork again and again while emitting; children emit, close and exit: COUNT DIRECTORY OUTPUT."""

import os
import sys
import time
import warnings
from collections import Counter

import asynccb
from tests.support import callbacks_for_tests

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
count, directory, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Notes(asynccb.TrainerCallback):
    def __init__(self):
        self.seen = []

    async def on_log(self, args, state, control, **kwargs):
        self.seen.append((os.getpid(), state.global_step))


def live_as_a_child(number: int) -> None:
    code = 0
    try:
        run.step(logs={"loss": -1.0})
    except asynccb.ForkedError:
        code = 7
    run.close()
    run.flush(1.0)
    if number % 2:
        time.sleep(0.01 * (number % 5))  # outlives some of the parent's emissions
        os._exit(code)
    sys.exit(code)  # through the interpreter's whole exit


notes, witness = Notes(), callbacks_for_tests.LogWitness(output)
run = asynccb.CallbackDispatcher([notes, witness], directory=directory)
children = []
for number in range(count):
    for _ in range(5):
        run.step(logs={"loss": 1.0})
    child = os.fork()
    if child == 0:
        live_as_a_child(number)
    children.append(child)
    if len(children) > 8:
        os.waitid(os.P_PID, children[-8], os.WEXITED | os.WNOWAIT)
codes = Counter(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
steps = list(range(1, 5 * count + 1))
print("codes", dict(codes))
print("flushed", run.flush(60))
print("thread", notes.seen == [(os.getpid(), step) for step in steps])
print("companion", [line["step"] for line in witness.lines()] == steps)
print("processes", len({line["pid"] for line in witness.lines()}))
run.close(10)
