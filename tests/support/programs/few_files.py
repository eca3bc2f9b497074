"""Run out of file descriptors, in the companion or here: WHO DIRECTORY OUTPUT."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

import asynccb
from tests.support.running import companion_of
from tests.support.trackers_for_tests import HoldsFile

who, directory, output = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


def allow(pid: int, descriptors: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def log(steps: int) -> None:
    for _ in range(steps):
        run.step(logs={"text": "x" * 20_000})
        time.sleep(0.0005)


with asynccb.CallbackDispatcher([HoldsFile(output)], directory=directory) as run:
    log(10)
    assert run.flush(20)
    companion = companion_of(run)
    pid = companion.pid if who == "companion" else os.getpid()
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    allow(pid, 3)  # what is open stays open, and nothing new can be
    if who == "companion killed":
        os.kill(companion.pid, signal.SIGKILL)
    log(1_300)  # 26 MB, more than a segment of the journal
    print(run.flush(20))
    if who == "companion":
        allow(pid, usual)
        log(500)
        print(run.flush(20))
    counts = run.statistics().callbacks["HoldsFile"]
    print(run.state.global_step, counts.dropped + run.statistics().dropped)
    if who == "companion killed":
        allow(pid, usual)
    run.close(20)
