"""Uploads and heartbeats of trackers in the companion."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb import CallbackDispatcher
from asynccb._cli import main
from tests.support.callbacks_for_tests import read_lines, read_steps
from tests.support.running import running
from tests.support.trackers_for_tests import Beating, Clumsy, Forbidden, Uploading
from tests.support.waiting import eventually


def arguments(tmp_path: Path) -> asynccb.TrainingArguments:
    return asynccb.TrainingArguments(output_dir=str(tmp_path / "out"))


def save(run: CallbackDispatcher, tmp_path: Path, step: int) -> Path:
    """Write a checkpoint of two files and tell the callbacks."""
    folder = tmp_path / "out" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / name).write_text(f"{name}{step}")
    run.emit("on_save")
    return folder


def step(run: CallbackDispatcher, number: int) -> None:
    run.step(logs={"loss": float(number)})


def files(path: Path) -> list[tuple[str, str]]:
    return [(line["file"], line["content"]) for line in read_lines(path) if "file" in line]


def uploaded(*numbers: int) -> list[tuple[str, str]]:
    return [(f"checkpoint-{n}/{name}", f"{name}{n}") for n in numbers for name in ("a", "b")]


def kept(directory: Path) -> int:
    """Return how many checkpoints wait."""
    return len(list(directory.glob("*/uploads/Uploading/[0-9]*[0-9]")))


def test_metrics_go_on_while_a_checkpoint_waits_and_rotation_cannot_pull_it_away(
    tmp_path: Path,
) -> None:
    path, directory = tmp_path / "sent", tmp_path / "runs"
    tracker = Uploading(str(path))
    with running(tracker, args=arguments(tmp_path), directory=directory) as run:
        run.emit("on_train_begin")
        for number in (1, 2):
            step(run, number)
            folder = save(run, tmp_path, number)
            eventually(lambda: kept(directory) == number)  # noqa: B023 - called at once
            shutil.rmtree(folder)
        for number in range(3, 100):
            step(run, number)
        assert run.flush(20)
        assert read_steps(path) == list(range(1, 100))
        assert files(path) == []
        tracker.gate.touch()
    assert files(path) == uploaded(1, 2)
    assert read_lines(path)[-1]["status"] == "finished"


def test_a_companion_killed_in_an_upload_is_followed_by_one_that_sends_the_rest(
    tmp_path: Path,
) -> None:
    path, directory = tmp_path / "sent", tmp_path / "runs"
    tracker = Uploading(str(path))
    with running(tracker, args=arguments(tmp_path), directory=directory) as run:
        run.emit("on_train_begin")
        step(run, 1)
        folder = save(run, tmp_path, 1)
        eventually(lambda: kept(directory) == 1)
        shutil.rmtree(folder)
        assert run.flush(20)
        first = read_lines(path)[0]["pid"]
        os.kill(first, signal.SIGKILL)
        tracker.gate.touch()
        step(run, 2)
    assert set(read_steps(path)) == {1, 2}  # a file takes a line twice, where a server would not
    assert files(path) == uploaded(1)
    assert first not in {line["pid"] for line in read_lines(path) if "file" in line}


def test_what_is_not_uploaded_at_the_deadline_is_uploaded_by_a_sync(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, directory = tmp_path / "sent", tmp_path / "runs"
    tracker = Uploading(str(path))
    run = CallbackDispatcher([tracker], args=arguments(tmp_path), directory=directory)
    run.emit("on_train_begin")
    step(run, 1)
    folder = save(run, tmp_path, 1)
    eventually(lambda: kept(directory) == 1)
    shutil.rmtree(folder)
    run.close(timeout=1.5)
    assert "asynccb sync" in capsys.readouterr().err
    assert files(path) == []
    assert "status" not in read_lines(path)[-1]
    tracker.gate.touch()
    assert main(["sync", str(directory)]) == 0
    assert files(path) == uploaded(1)
    assert read_lines(path)[-1]["status"] == "finished"


def test_a_checkpoint_that_is_gone_already_is_rejected_and_costs_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sent"
    tracker = Uploading(str(path))
    tracker.gate.touch()
    with running(tracker, args=arguments(tmp_path), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        step(run, 1)
        run.emit("on_save")
        step(run, 2)
        save(run, tmp_path, 2)
    assert files(path) == uploaded(2)
    assert run.statistics().callbacks["Uploading"].rejected == 1
    assert read_lines(path)[-1]["status"] == "finished"


def test_a_checkpoint_beyond_the_limit_is_rejected_with_what_to_do_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCCB_UPLOAD_LIMIT", "1M")
    path = tmp_path / "sent"
    tracker = Uploading(str(path))
    tracker.gate.touch()
    with running(tracker, args=arguments(tmp_path), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        step(run, 1)
        (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
        (tmp_path / "out" / "checkpoint-1" / "large").write_bytes(bytes(2 << 20))
        run.emit("on_save")
        step(run, 2)
        save(run, tmp_path, 2)
    assert files(path) == uploaded(2)
    assert run.statistics().callbacks["Uploading"].rejected == 1
    assert "more than 1 MiB; raise ASYNCCB_UPLOAD_LIMIT" in caplog.text


def test_an_upload_that_fails_by_a_bug_ends_the_tracker_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clumsy, other = tmp_path / "clumsy", tmp_path / "other"
    good = Uploading(str(other))
    good.gate.touch()
    callbacks: list[Any] = [Clumsy(str(clumsy)), good]
    with running(*callbacks, args=arguments(tmp_path), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        step(run, 1)
        save(run, tmp_path, 1)
        eventually(lambda: run.statistics().callbacks["Clumsy"].disabled)
    assert files(other) == uploaded(1)
    assert read_lines(other)[-1]["status"] == "finished"


def test_a_live_run_beats_though_nothing_is_logged_and_a_beat_that_fails_is_one_beat(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sent"
    with running(Beating(str(path)), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        step(run, 1)
        eventually(lambda: sum("beat" in line for line in read_lines(path)) >= 3)
        step(run, 2)
    lines = read_lines(path)
    assert [line["beat"] for line in lines if "beat" in line][:3] == [3, 4, 5]
    assert read_steps(path) == [1, 2]
    assert lines[-1]["status"] == "finished"
    assert run.statistics().callbacks["Beating"].retried == 2


def test_a_beat_that_is_forbidden_ends_the_tracker(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    with running(Forbidden(str(path)), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        step(run, 1)
        eventually(lambda: run.statistics().callbacks["Forbidden"].disabled)
