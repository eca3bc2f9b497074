"""Train, end as asked for, and say how long the close took: HOW DIRECTORY OUTPUT."""

import os
import signal
import sys
import time

from asynccb import CallbackDispatcher
from asynccb.testing import RecordingTracker

how, directory, output = sys.argv[1:]
tracker = RecordingTracker(output)
longest = 30.0
if how.startswith("unreachable"):
    how = how.removeprefix("unreachable ")
    tracker.go_away()
    longest = 1.0


def train(run: CallbackDispatcher) -> None:
    for _ in range(10):
        run.step(logs={"loss": 1.0})
    print("trained", flush=True)
    match how:
        case "raises":
            sys.excepthook = lambda *error: None
            raise RuntimeError("x")
        case "exits with 0":
            sys.exit(0)
        case "exits with 3":
            sys.exit(3)
        case "exits at once":
            os._exit(3)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "is terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        case "is terminated and exits":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            os.kill(os.getpid(), signal.SIGTERM)
        case "is interrupted":
            os.kill(os.getpid(), signal.SIGINT)


class Timed(CallbackDispatcher):
    def close(self, timeout: float = 1.0, **options) -> None:
        begin = time.monotonic()
        try:
            super().close(longest, **options)
        finally:
            print("close took", time.monotonic() - begin, flush=True)


with Timed([tracker], directory=directory) as run:
    train(run)
