"""`asynccb sync`: delivers the remaining records of journals."""

from __future__ import annotations

import logging
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import stamina.instrumentation
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from asynccb._companion.sync import Synced, sync_run
from asynccb._ground.exceptions import BusyError, JournalError
from asynccb._journal.overview import look_at_all
from asynccb._journal.run_folder import GoneError


def sync(runs: list[Path], tracker: str | None, timeout: float | None) -> int:
    """Deliver every run, all of them within `timeout` seconds; return the exit status."""
    # Lanes log their retries themselves; stamina's own reports would duplicate them.
    stamina.instrumentation.set_on_retry_hooks(())
    if tracker is not None and tracker not in (names := _trackers(runs)):
        print(
            f"asynccb sync: no run has a tracker {tracker!r}; there are {', '.join(sorted(names))}",
            file=sys.stderr,
        )
        return 2
    deadline = None if timeout is None else time.monotonic() + timeout
    return max(_sync_run(run, tracker, deadline) for run in runs)


def _trackers(runs: list[Path]) -> set[str]:
    return {lane.name for overview in look_at_all(runs) for lane in overview.lanes}


def _sync_run(run: Path, tracker: str | None, deadline: float | None) -> int:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    with (
        tqdm(desc=run.name, unit=" records", disable=None, leave=False) as bar,
        logging_redirect_tqdm([logging.getLogger()]),
    ):

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            synced = anyio.run(partial(sync_run, run, left, show, tracker, remove=True))
        except BusyError as error:
            print(f"left alone: {error}")
            return 1
        except GoneError:
            synced = {}
        except (JournalError, OSError) as error:
            print(f"asynccb sync: {error}", file=sys.stderr)
            return 2
    for name, result in synced.items():
        print(f"{run}: {name}: {_describe(result)}")
    if not synced:
        print(f"{run}: nothing is left to deliver")
    return 1 if any(result.pending for result in synced.values()) else 0


def _describe(result: Synced) -> str:
    lost = f", {result.lost} lost" if result.lost else ""
    left = f", {result.pending} left" if result.pending else ""
    where = f" -> {result.address}" if result.address else ""
    return f"{result.delivered} records delivered{lost}{left}{where}"
