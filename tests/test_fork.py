"""Forked and spawned processes beside a run: they end, they are refused, they touch nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asynccb._cli import main
from asynccb._journal.run_folder import is_live
from tests.support.callbacks_for_tests import read_lines
from tests.support.launching import launch, output_of
from tests.support.waiting import eventually, is_gone


def test_children_forked_during_emission_end_and_leave_no_record(tmp_path: Path) -> None:
    said, _ = output_of("fork_often", 60, tmp_path / "runs", tmp_path / "output")
    assert said.splitlines() == [
        "codes {7: 60}",
        "flushed True",
        "thread True",
        "companion True",
        "processes 1",
    ]


# A worker that is not forked imports torch, which takes seconds: one epoch of them is enough.
@pytest.mark.parametrize(("method", "epochs"), [("fork", 3), ("forkserver", 1), ("spawn", 1)])
def test_workers_of_a_data_loader_neither_hang_nor_emit(
    tmp_path: Path, method: str, epochs: int
) -> None:
    folders = (tmp_path / "runs", tmp_path / "output")
    said, _ = output_of("load_data", method, epochs, *folders, timeout=120.0)
    assert said.splitlines() == ["items True", "flushed True", "thread True", "companion True"]


def test_a_child_that_a_hook_forks_ends_with_the_hook(tmp_path: Path) -> None:
    said, _ = output_of("fork_in_hook", tmp_path / "runs", tmp_path / "output")
    assert said.splitlines()[0] == "flushed True"
    assert len(said.splitlines()) == 2
    for name in ("output", "output.companion"):
        lines = read_lines(tmp_path / name)
        steps = [line["step"] for line in lines if "step" in line]
        assert steps == list(range(1, 21)), name
        assert len({line["pid"] for line in lines if "step" in line}) == 1
        assert [line["child"] for line in lines if "child" in line] == steps


def test_a_child_that_outlives_its_killed_parent_does_not_keep_the_run_from_being_delivered(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "runs"
    with launch("fork_and_die", directory, stdin=subprocess.PIPE) as training:
        assert training.stdout is not None
        child = int(training.stdout.readline())
        (run,) = directory.iterdir()
        eventually(lambda: not is_live(run))
        assert not is_gone(child)
        assert main(["sync", str(directory)]) == 0
