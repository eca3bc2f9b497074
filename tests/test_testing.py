"""The test kit: what a test can see with it, and that it changes nothing for good."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import environment
from running import running
from waiting import eventually

import asynccb
from asynccb.testing import Recorded, RecordingTracker, no_sync


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/test_gpu.py has the other half")
def test_no_sync_is_refused_where_nothing_could_fail() -> None:
    with pytest.raises(asynccb.ConfigurationError, match="no CUDA device"), no_sync():
        pass


class TestRecordingTracker:
    def test_what_was_emitted_is_recorded_with_step_time_and_values(self, tmp_path: Path) -> None:
        tracker = RecordingTracker(tmp_path / "recorded")
        with running(tracker, directory=tmp_path / "runs") as run:
            run.emit("on_train_begin")
            before = time.time_ns()
            run.step(logs={"loss": 0.5}, metrics={"eval_loss": 2.0})
            after = time.time_ns()
            assert run.flush(20)
            began, ended, *rest = tracker.recorded()
        assert (began.event, began.step, began.values) == ("on_train_begin", 0, {})
        assert (ended.event, ended.step, ended.values) == ("on_step_end", 1, {})
        assert before <= ended.time <= after
        assert [(one.event, one.values) for one in rest] == [
            ("on_log", {"logs": {"loss": 0.5}}),
            ("on_log", {"logs": {"eval_loss": 2.0}}),
            ("on_evaluate", {"metrics": {"eval_loss": 2.0}}),
        ]
        assert tracker.recorded("on_evaluate") == rest[-1:]
        assert tracker.status() == "finished"

    def test_nothing_is_recorded_while_it_is_away_and_everything_when_it_is_back(
        self, tmp_path: Path
    ) -> None:
        tracker = RecordingTracker(tmp_path / "recorded")
        tracker.go_away()
        with running(tracker, directory=tmp_path / "runs") as run:
            run.step(logs={"loss": 0.5})
            eventually(lambda: run.statistics().callbacks["RecordingTracker"].retried)
            assert tracker.recorded() == []
            assert tracker.status() is None
            tracker.come_back()
            assert run.flush(20)
            assert [type(one) for one in tracker.recorded()] == [Recorded, Recorded]

    def test_it_needs_no_torch(self) -> None:
        program = "import sys, asynccb.testing; print('torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "False\n"
