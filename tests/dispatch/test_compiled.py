"""Logging inside a function that torch compiles."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import asynccb
from tests.support.launching import command, environment

FOLDER = str(Path(asynccb.__file__).parent)
RETURNED = [6.0 * value + 1 for value in (0, 1, 2, 3, 0, 1)]
LOGGED = [-1.0, *(value - 1 for value in RETURNED)]


def compiled(path: Path, what: str, how: str, when: str) -> tuple[dict[str, Any], list[str]]:
    """Run the program; return what it printed, and the files and lines that Dynamo traced."""
    done = subprocess.run(
        command("log_compiled", path, what, how, when),
        env=environment() | {"TORCH_LOGS": "trace_source"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    traced = re.findall(r"TRACE starts_line (\S+:\d+) in", done.stderr)
    assert any("log_compiled.py" in line for line in traced), done.stderr
    return json.loads(done.stdout.splitlines()[-1]), traced


def ours(traced: list[str]) -> list[str]:
    return [line.removeprefix(FOLDER) for line in traced if line.startswith(FOLDER)]


@pytest.mark.parametrize("when", ["first", "late"])
@pytest.mark.parametrize("what", ["step", "log", "emit"])
def test_a_call_in_a_compiled_step_is_one_break_and_no_line_of_ours_is_traced(
    tmp_path: Path, what: str, when: str
) -> None:
    seen, traced = compiled(tmp_path, what, "eager", when)
    assert seen == {"returned": RETURNED, "logged": LOGGED, "breaks": [2]}  # compiled twice
    assert not ours(traced)


@pytest.mark.parametrize("how", ["default", "reduce-overhead"])
def test_values_logged_in_a_compiled_step_are_right_in_every_mode(tmp_path: Path, how: str) -> None:
    seen, traced = compiled(tmp_path, "step", how, "first")
    assert seen == {"returned": RETURNED, "logged": LOGGED, "breaks": [2]}
    assert not ours(traced)


def test_a_step_that_dynamo_does_not_compile_at_all_makes_it_trace_no_line_of_ours(
    tmp_path: Path,
) -> None:
    seen, traced = compiled(tmp_path, "loop", "eager", "first")
    assert seen["logged"] == [-1.0, *(loss for loss in LOGGED[1:] for _ in range(2))]
    assert not ours(traced)


def test_such_a_step_with_torch_imported_late_traces_one_call_of_ours_at_most(
    tmp_path: Path,
) -> None:
    seen, traced = compiled(tmp_path, "loop", "eager", "late")
    assert seen["logged"] == [-1.0, *(loss for loss in LOGGED[1:] for _ in range(2))]
    assert {line.partition(":")[0] for line in ours(traced)} == {"/_dispatch/dispatcher.py"}
    source, first = inspect.getsourcelines(asynccb.CallbackDispatcher.step)
    lines = {int(line.partition(":")[2]) for line in ours(traced)}
    assert lines <= set(range(first, first + len(source)))


def test_a_torch_that_cannot_mark_frames_traces_no_line_of_ours_either(tmp_path: Path) -> None:
    seen, traced = compiled(tmp_path, "step", "eager", "old")
    assert seen == {"returned": RETURNED, "logged": LOGGED, "breaks": [2]}
    assert not ours(traced)


def test_a_step_that_must_not_break_is_told_what_to_do(tmp_path: Path) -> None:
    with asynccb.CallbackDispatcher([], directory=tmp_path) as run:

        @torch.compile(backend="eager", fullgraph=True)
        def step(x: torch.Tensor) -> torch.Tensor:
            run.step(logs={"loss": x})
            return x

        with pytest.raises(Exception, match="for fullgraph=True return the values, and log them"):
            step(torch.zeros(()))
