"""Fork in the middle of a run; parent and child say what they could do: DIRECTORY OUTPUT."""

import os
import sys
import threading
import warnings

import asynccb
from tests.support import callbacks_for_tests

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point


class Notes(asynccb.TrainerCallback):
    seen = 0

    async def on_log(self, args, state, control, **kwargs):
        self.seen += 1


notes = Notes()
witness = callbacks_for_tests.LogWitness(sys.argv[2])
run = asynccb.CallbackDispatcher([notes, witness], directory=sys.argv[1])
for _ in range(100):
    run.step(logs={"loss": 1.0})
child = os.fork()
if child == 0:
    for call in (run.step, lambda: run.emit("on_train_end"), lambda: run.request(should_log=True)):
        try:
            call()
        except asynccb.ForkedError as error:
            print("child:", type(error).__name__, error, flush=True)
    run.close()
    print("child: threads", threading.active_count(), flush=True)
    sys.exit(7)  # through the interpreter's whole exit, atexit included
_, status = os.waitpid(child, 0)
print("parent: child ended with", os.waitstatus_to_exitcode(status), flush=True)
for _ in range(100):
    run.step(logs={"loss": 1.0})
print("parent: flushed", run.flush(10), flush=True)
run.close(10)
print("parent: steps", notes.seen, len(witness.lines()), flush=True)
