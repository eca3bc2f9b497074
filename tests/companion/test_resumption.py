"""What trackers get in trainings that go on from one another's checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asynccb import CallbackDispatcher, TrainerState
from asynccb.testing import RecordingTracker
from tests.support.callbacks_for_tests import AwayTracker, FileTracker, read_lines
from tests.support.running import running
from tests.support.trackers_for_tests import Elsewhere, Numbered, Rewinding, Slow, Unborn
from tests.support.waiting import eventually


class Training:
    """Train in turn with one kind of tracker, each time from a state."""

    def __init__(self, folder: Path, kind: type[Any] = Numbered) -> None:
        self.path = folder / "server"
        self.directory = folder / "runs"
        self.kind = kind

    @contextmanager
    def go_on(self, state: dict[str, Any] | None = None, step: int = 0) -> Iterator[Any]:
        tracker, history = self.kind(self.path), [{"loss": n, "step": n} for n in range(1, step)]
        begun = TrainerState(global_step=step, log_history=history)
        with running(tracker, directory=self.directory, state=begun) as run:
            if state is not None:
                run.load_state_dict(json.loads(json.dumps(state)))
            run.emit("on_train_begin")
            yield run

    def logs(self) -> list[tuple[int, Any]]:
        return [
            (line["step"], line["logs"]["loss"]) for line in read_lines(self.path) if "logs" in line
        ]


def steps(run: CallbackDispatcher, last: int) -> None:
    """Log each step up to the last, twice the even ones."""
    while run.state.global_step < last:
        run.step(logs={"loss": run.state.global_step + 1})
        if run.state.global_step % 2 == 0:
            run.log({"loss": -run.state.global_step})


def whole(last: int, first: int = 1) -> list[tuple[int, int]]:
    return [
        (step, loss)
        for step in range(first, last + 1)
        for loss in ((step, -step) if step % 2 == 0 else (step,))
    ]


def state_after(run: CallbackDispatcher, step: int) -> dict[str, Any]:
    steps(run, step)
    return run.state_dict()


def test_each_log_is_sent_once_and_numbered_on_whatever_is_resumed_from_where(
    tmp_path: Path,
) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 8)
    for last in (11, 9, 6, 13):  # from one checkpoint, again and again
        with training.go_on(state, 4) as run:
            steps(run, last)
    assert training.logs() == whole(13)
    lines = [line for line in read_lines(training.path) if "number" in line]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert len({line["key"] for line in lines}) == 1


def test_a_checkpoint_of_a_resumed_training_is_resumed_from_too(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        first = state_after(run, 2)
        steps(run, 5)
    with training.go_on(first, 2) as run:
        second = state_after(run, 7)
        steps(run, 9)
    with training.go_on(second, 7) as run:
        steps(run, 10)
    assert training.logs() == whole(10)


@pytest.mark.parametrize("after", [0, 1])
def test_a_training_that_ended_in_the_middle_of_a_step_s_logs_gets_the_rest(
    tmp_path: Path, after: int
) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        steps(run, 3)
        run.step(logs={"loss": 4})
        state = run.state_dict()
        for _ in range(after):
            run.log({"loss": -4})
    with training.go_on(state, 4) as run:
        run.state.log_history.append({"loss": 4, "step": 4})
        run.log({"loss": -4})
        steps(run, 5)
    assert training.logs() == whole(5)


def test_a_server_that_rewinds_gets_what_comes_after_the_checkpoint_again(tmp_path: Path) -> None:
    training = Training(tmp_path, Rewinding)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 7)
    with training.go_on(state, 4) as run:
        steps(run, 6)
    assert training.logs() == whole(7) + whole(6, first=5)


def test_a_tracker_that_goes_elsewhere_gets_it_too(tmp_path: Path) -> None:
    training = Training(tmp_path, Elsewhere)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 7)
    with training.go_on(state, 4) as run:
        steps(run, 6)
    assert training.logs() == whole(7) + whole(6, first=5)


def test_without_the_earlier_folder_a_tracker_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        steps(run, 4)

        def known() -> bool:  # the cursor is written after a flush
            lanes = run.state_dict()["trackers"]["lanes"]
            return "Numbered" in lanes and lanes["Numbered"]["attributes"] == {"number": 6}

        eventually(known)
        state = run.state_dict()
    shutil.rmtree(training.directory)
    with training.go_on(state, 4) as run:
        steps(run, 6)
    assert training.logs() == whole(6)
    numbers = [line["number"] for line in read_lines(training.path) if "number" in line]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_tracker_that_has_begun_a_run_of_its_own_stays_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        state = state_after(run, 4)
    with running(Numbered(str(training.path)), directory=training.directory) as run:
        run.log({"loss": 0})
        assert run.flush(20)
        run.state.global_step = 4
        run.load_state_dict(state)
        run.emit("on_train_begin")
        run.step(logs={"loss": 5})
        assert run.flush(20)
    assert [line["number"] for line in read_lines(training.path) if "number" in line][-2:] == [1, 2]
    assert "had begun a run of its own before the training was resumed" in caplog.text


def test_a_dispatcher_that_nobody_has_closed_holds_the_next_one_up_no_longer_than_its_logs(
    tmp_path: Path,
) -> None:
    training = Training(tmp_path)
    with training.go_on() as first:
        state = state_after(first, 4)
        steps(first, 7)
        assert first.flush(20)  # what is not in its journal yet is not waited for
        with training.go_on(state, 4) as run:
            steps(run, 9)
            assert run.flush(20)
        assert training.logs() == whole(9)


def test_a_second_training_in_one_process_sends_nothing_twice(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 7)
        run.state.global_step = 4
        run.load_state_dict(state)
        run.emit("on_train_begin")
        steps(run, 9)
    assert training.logs() == whole(9)


def test_a_training_that_begins_anew_in_one_process_sends_everything(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.go_on() as run:
        steps(run, 5)
        run.state.global_step = 0
        run.emit("on_train_begin")
        steps(run, 3)
    assert training.logs() == whole(5) + whole(3)


def test_a_tracker_without_attributes_is_spared_what_it_has_too(tmp_path: Path) -> None:
    training = Training(tmp_path, FileTracker)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 7)
    with training.go_on(state, 4) as run:
        steps(run, 9)
    assert training.logs() == whole(9)


def delivering_nothing(training: Training) -> dict[str, Any]:
    """Train for 7 steps while the server is away; return the state after 4, the server being up."""
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 7)
        run.close(0.5)
    assert training.logs() == []
    Path(f"{training.path}.up").touch()
    return state


def test_what_the_first_training_could_not_deliver_comes_first(tmp_path: Path) -> None:
    training = Training(tmp_path, AwayTracker)
    state = delivering_nothing(training)
    with training.go_on(state, 4) as run:
        steps(run, 9)
    assert training.logs() == whole(9)
    ends = [line["status"] for line in read_lines(training.path) if "status" in line]
    assert ends == ["finished", "finished"]


def test_a_slow_server_s_request_is_not_cut_off_when_another_tracker_has_what_it_waits_for(
    tmp_path: Path,
) -> None:
    quick, slow = Training(tmp_path / "quick", AwayTracker), Training(tmp_path / "slow", Slow)
    for training in (quick, slow):
        training.path.parent.mkdir()

    def trackers() -> tuple[AwayTracker, Slow]:
        return AwayTracker(str(quick.path)), Slow(str(slow.path))

    with running(*trackers(), directory=tmp_path / "runs") as run:
        state = state_after(run, 4)
        steps(run, 7)
        run.close(0.5)
    for training in (quick, slow):
        Path(f"{training.path}.up").touch()
    with running(*trackers(), directory=tmp_path / "runs") as run:
        run.state.global_step = 4
        run.load_state_dict(state)
        run.emit("on_train_begin")
        steps(run, 9)
        eventually(lambda: quick.logs() == whole(9))
        assert slow.logs() == []
        Path(f"{slow.path}.gate").touch()
    assert slow.logs() == whole(9)
    assert not Path(f"{slow.path}.cut").exists()


def test_an_earlier_tracker_that_cannot_come_to_life_again_holds_nobody_up(tmp_path: Path) -> None:
    training = Training(tmp_path, Unborn)
    state = delivering_nothing(training)
    with training.go_on(state, 4) as run:
        steps(run, 9)
        assert run.flush(20)
    assert training.logs() == whole(9, first=5)


def test_other_events_than_logs_are_not_left_out(tmp_path: Path) -> None:
    training = Training(tmp_path, RecordingTracker)
    with training.go_on() as run:
        state = state_after(run, 4)
        steps(run, 6)
    with training.go_on(state, 4) as run:
        steps(run, 6)
    recorder = RecordingTracker(training.path)
    assert len(recorder.recorded("on_log")) == len(whole(6))
    assert len(recorder.recorded("on_step_end")) == 6 + 2
    assert len(recorder.recorded("on_train_begin")) == 2
