"""Log while the disk that holds the journal gets full, and is freed again."""

import sys
import time
from pathlib import Path

from callbacks_for_tests import FileTracker

import asynccb

disk, tracked, free_it = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "freed"
steps, slowest = 0, 0.0


def log_for(seconds: float) -> None:
    global steps, slowest
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        run.step(logs={"text": "x" * 5_000})
        steps += 1
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.001)


def fill() -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


with asynccb.CallbackDispatcher([FileTracker(tracked)], directory=disk / "runs") as run:
    log_for(0.5)
    assert run.flush(20)
    fill()
    before = steps
    while steps < before + 4000:  # 20 MB, more than the ring holds
        log_for(0.5)
    if free_it:
        (disk / "filler").unlink()
        log_for(0.5)
        assert run.flush(20)
    dropped = run.statistics().callbacks["FileTracker"].dropped
    run.close(3.0)
print(steps, dropped, f"{slowest:.3f}")
