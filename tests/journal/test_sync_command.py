"""The printed command delivers what it says, as printed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asynccb._journal.sync_command import sync_command
from asynccb.testing import RecordingTracker
from tests.support.running import running


def test_the_closing_line_can_be_typed_elsewhere_without_asynccb_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASYNCCB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with running(RecordingTracker(tmp_path / "seen"), directory=tmp_path / "my runs") as run:
        run.step(logs={"loss": 1.0})
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "to deliver" in line)
    command = line.partition("RecordingTracker: ")[2]
    assert "-m asynccb sync" in command
    (tmp_path / "elsewhere").mkdir()
    root = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # asynccb may not be installed
    done = subprocess.run(
        shlex.split(command),
        cwd=tmp_path / "elsewhere",
        env={"PATH": str(tmp_path), **root},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "records delivered" in done.stdout
    assert [one.step for one in RecordingTracker(tmp_path / "seen").recorded("on_log")] == [1]


def test_the_command_is_short_if_the_one_on_the_path_is_this_interpreter_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "asynccb").write_text("#!/bin/sh\n")
    (tmp_path / "asynccb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sync_command("a run") == "asynccb sync 'a run'"


def test_the_command_of_another_interpreter_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asynccb").write_text("#!/bin/sh\n")
    (tmp_path / "asynccb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sync_command("run") == f"{sys.executable} -m asynccb sync run"
