"""Close with a tracker whose server is away, for up to a minute: DIRECTORY OUTPUT [exit]."""

import sys

from asynccb import CallbackDispatcher
from asynccb.testing import RecordingTracker

tracker = RecordingTracker(sys.argv[2])
tracker.go_away()
run = CallbackDispatcher([tracker], directory=sys.argv[1])
run.emit("on_train_begin")
for _ in range(10):
    run.step(logs={"loss": 1.0})
print("closing", flush=True)
if sys.argv[3:] != ["exit"]:  # else the interpreter closes it
    run.close(60.0)
