"""Log while the disk that holds the journal gets full, and perhaps is freed again."""

import logging
import sys
import time
from pathlib import Path

import asynccb
from tests.support.callbacks_for_tests import AwayTracker

disk, tracked, then, server = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
steps = 0


def log_until(end: int) -> None:
    global steps
    while steps < end:
        run.step(logs={"text": "x" * 20_000})
        steps += 1
        time.sleep(0.0005)


def fill() -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


class Said(logging.StreamHandler):  # type: ignore[type-arg]
    """Print what is said, and keep it."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()
        super().emit(record)


said = Said()
logging.getLogger("asynccb").addHandler(said)
up = Path(f"{tracked}.up")
up.touch()
tracker = AwayTracker(tracked)
with asynccb.CallbackDispatcher([tracker], directory=disk / "runs") as run:
    log_until(100)
    assert run.flush(20)
    fill()
    if server == "away":
        up.unlink()
        log_until(2_500)  # 50 MB, more than ring and memory hold
    else:
        log_until(1_300)
        print(run.flush(20))
    if then == "freed":
        (disk / "filler").unlink()
        up.touch()
        log_until(steps + 500)
        print(run.flush(60))
        while "can be written again" not in said.text:  # the disk is tried twice a second
            run.flush(1)
            time.sleep(0.01)
    dropped = run.statistics().callbacks["AwayTracker"].dropped
    run.close(3.0)
print(steps, dropped)
