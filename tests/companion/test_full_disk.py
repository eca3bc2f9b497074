"""A whole run on a small disk of its own that gets full; needs user namespaces."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from asynccb._companion.journal_lane import GROUP
from tests.support.callbacks_for_tests import read_lines
from tests.support.launching import command, environment

SIZE = 64 << 20


def small_disk(path: Path, how: str = "rw") -> list[str]:
    """Return what a command begins with to have a disk of its own mounted on a folder."""
    path.mkdir()
    mount = f'mount -t tmpfs -o {how},size={SIZE} none "{path}" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    tried = subprocess.run([*small_disk(tmp_path / "tried"), "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.decode().strip()}")
    return tmp_path / "disk"


@dataclass
class Run:
    """What a run on a small disk has come to."""

    said: str
    flushed: list[str]
    steps: int
    dropped: int
    """As counted before the close."""
    seen: list[int]
    """Steps that the tracker's server has, in order."""
    statuses: list[str]


def train(disk: Path, tracked: Path, then: str, server: str) -> Run:
    done = subprocess.run(
        [*small_disk(disk), *command("fill_disk", disk, tracked, then, server)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the journal cannot be written ([Errno 28] No space left") == 1
    *flushed, last = done.stdout.splitlines()
    lines = read_lines(tracked)
    return Run(
        done.stderr,
        flushed,
        *map(int, last.split()),
        seen=[line["step"] for line in lines if "step" in line],
        statuses=[line["status"] for line in lines if "status" in line],
    )


@pytest.mark.parametrize("then", ["freed", "full to the end"])
def test_trackers_are_served_from_memory_and_nothing_is_lost(
    disk: Path, tmp_path: Path, then: str
) -> None:
    run = train(disk, tmp_path / "tracked", then, "here")
    assert run.flushed[0] == "True"  # while the disk is full
    assert run.seen == list(range(1, run.steps + 1))
    assert run.dropped == 0
    assert run.statuses == ["finished"]
    assert "NOT delivered" not in run.said
    if then == "full to the end":  # freed just before the end, the disk may not be tried again
        assert "events were dropped meanwhile" not in run.said


def test_what_does_not_fit_memory_is_dropped_counted_and_said(disk: Path, tmp_path: Path) -> None:
    run = train(disk, tmp_path / "tracked", "freed", "away")
    assert run.seen == sorted(set(run.seen))
    assert run.seen[-1] == run.steps
    assert len(run.seen) + run.dropped == run.steps
    assert run.dropped > 0
    assert run.seen[-1000:] == list(range(run.steps - 999, run.steps + 1))  # the newest are kept
    assert run.statuses == ["finished"]
    (said,) = re.findall(r"(\d+) events were dropped meanwhile", run.said)
    assert 0 <= int(said) - run.dropped <= GROUP  # what the lane had read by then is delivered


def test_what_is_neither_on_the_disk_nor_delivered_at_the_end_is_said(
    disk: Path, tmp_path: Path
) -> None:
    run = train(disk, tmp_path / "tracked", "full to the end", "away")
    assert run.seen == list(range(1, 101))
    assert "NOT delivered" in run.said
    assert "the disk has not taken the end of the journal" in run.said


def test_a_directory_that_is_read_only_leaves_the_lanes_on_the_thread(
    disk: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *small_disk(disk, "ro"),
            *command("cannot_start", "read-only", disk / "runs", tmp_path / "output"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    warnings = [line for line in done.stdout.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "LogWitness is served by a thread of the training process" in warnings[0]
    assert "Read-only file system" in warnings[0]
    steps = [line["step"] for line in read_lines(tmp_path / "output")]
    assert steps == list(range(1, 9))
