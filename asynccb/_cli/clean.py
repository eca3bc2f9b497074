"""`asynccb clean`: removes runs that are no longer needed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import anyio

from asynccb._cli.ls import size_text
from asynccb._ground.exceptions import BusyError
from asynccb._journal.overview import Overview, look_at
from asynccb._journal.run_folder import GoneError, RunFolder


def clean(runs: list[Path], *, undelivered: bool, dry_run: bool) -> int:
    """Remove runs, printing what happened to each and why; return 1 if a removal failed."""
    failed = False
    for run in runs:
        remove = partial(_clean_run, run, undelivered=undelivered, dry_run=dry_run)
        try:
            done = anyio.run(remove)
        except BusyError:
            done = "left alone, it is live"
        except GoneError:
            done = "removed already"
        except OSError as error:
            print(f"asynccb clean: {run} cannot be removed: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{run}: {done}")
    return 1 if failed else 0


async def _clean_run(run: Path, *, undelivered: bool, dry_run: bool) -> str:
    """Remove a run unless there is a reason to keep it; return a text about the result."""
    folder = RunFolder(run)
    await folder.lock(left_behind=True)
    try:
        overview = look_at(run)
        if not undelivered and (reason := _reason_to_keep(overview)):
            return f"kept, {reason} (--undelivered removes it anyway)"
        size = size_text(overview.size)
        if dry_run:
            return f"would be removed, {size}"
        left = folder.remove()
    finally:
        await folder.close()
    return f"removed, {size}" + (f", except {', '.join(left)}" if left else "")


def _reason_to_keep(overview: Overview) -> str | None:
    if overview.trouble is not None:
        return overview.trouble
    behind = [f"{lane.behind:,} records for {lane.name}" for lane in overview.lanes if lane.behind]
    return f"not delivered: {', '.join(behind)}" if behind else None
