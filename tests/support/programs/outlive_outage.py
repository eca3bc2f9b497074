"""Emit to a server that is not there, and say how memory grew: EVENTS RATE(0: any) DIRECTORY."""

import os
import sys
import time
from pathlib import Path

import asynccb
from tests.support.running import companion_of

events, rate, directory = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB, what it shares with others left out."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def emit(first: int, count: int) -> None:
    begin = time.monotonic()
    for step in range(count):
        run.emit("on_log", logs={"loss": 1 / (first + step + 1), "learning_rate": 0.1})
        if rate:
            time.sleep(max(0.0, begin + step / rate - time.monotonic()))


tracker = asynccb.MLflowCallback(tracking_uri="http://127.0.0.1:9", experiment_name="away")
run = asynccb.CallbackDispatcher([tracker], directory=directory)
run.emit("on_train_begin")
emit(0, 5000)
while not run.statistics().callbacks["MLflowCallback"].retried:
    time.sleep(0.05)
companion = companion_of(run).pid
before = resident(os.getpid()), resident(companion)
begin = time.monotonic()
emit(5000, events)
seconds = time.monotonic() - begin
after = resident(os.getpid()), resident(companion)
assert companion_of(run).pid == companion
counts = run.statistics()
journal = sum(path.stat().st_size for path in Path(directory).rglob("*.segment"))
print(f"trainer {after[0] - before[0]} KiB, companion {after[1] - before[1]} KiB")
print(f"{events} events in {seconds:.1f} s, dropped {counts.dropped}, journal {journal} bytes")
run.close(1.0)
