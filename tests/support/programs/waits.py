"""Close with a tracker whose server is away, for a long time: DIRECTORY OUTPUT [HOW]."""

import sys

from asynccb import CallbackDispatcher
from asynccb.testing import RecordingTracker

tracker = RecordingTracker(sys.argv[2])
tracker.go_away()
how = sys.argv[3] if len(sys.argv) > 3 else "close"


def steps(run: CallbackDispatcher) -> None:
    for _ in range(10):
        run.step(logs={"loss": 1.0})
    print("closing", flush=True)


def drop() -> None:
    """Lose the last reference without a close."""
    run = CallbackDispatcher([tracker], directory=sys.argv[1])
    run.emit("on_train_begin")
    steps(run)


if how == "with":
    with CallbackDispatcher([tracker], directory=sys.argv[1]) as run:
        steps(run)
elif how == "dropped":
    drop()
    print("not reached", flush=True)
elif how == "exit":  # the interpreter closes it
    run = CallbackDispatcher([tracker], directory=sys.argv[1])
    run.emit("on_train_begin")
    steps(run)
elif how in ("close", "caught"):
    run = CallbackDispatcher([tracker], directory=sys.argv[1])
    run.emit("on_train_begin")
    steps(run)
    try:
        run.close(60.0)
    except KeyboardInterrupt:
        if how == "close":
            raise
else:  # nothing follows
    drop()
