"""What is decided on a checkpoint's `on_save`, in a run that resumes from there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asynccb import CallbackDispatcher, ConfigurationError, TrainerCallback, TrainerState, decides
from tests.decisions.deciding import SavedInCompanion, WatchesSaves, lines_of, trace_of
from tests.support.running import running
from tests.support.waiting import eventually

FILE = "on_save.json"
STEP = 2
"""Step of the checkpoint."""


class OnSave(TrainerCallback):
    """Ask for an evaluation on each save, when `open` is set."""

    def __init__(self, lag: int) -> None:
        self.open = threading.Event()
        self.asked: list[int] = []

        @decides(lag)
        async def on_save(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.asked.append(state.global_step)
            while not self.open.is_set():
                await anyio.sleep(0.001)
            control.should_evaluate = True

        self.on_save = on_save  # type: ignore[method-assign]


def opened(lag: int) -> OnSave:
    callback = OnSave(lag)
    callback.open.set()
    return callback


class CutsEpoch(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_epoch_stop = True


def note(checkpoint: Path) -> Any:
    return json.loads((checkpoint / FILE).read_text())


@contextmanager
def saved(folder: Path, *callbacks: Any, steps: int = 0) -> Iterator[CallbackDispatcher]:
    """Save a checkpoint after two steps, do some more, and go on as the test says."""
    checkpoint = folder / "checkpoint"
    with running(*callbacks, directory=folder / "first") as run:
        for _ in range(STEP):
            run.step()
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps(run.state_dict()))
        run.save_trace(checkpoint)
        run.emit_save(checkpoint)
        flags_at(run, steps)
        yield run


@contextmanager
def resumed(folder: Path, *callbacks: Any) -> Iterator[CallbackDispatcher]:
    """Go on from the checkpoint."""
    checkpoint, state = folder / "checkpoint", TrainerState(global_step=STEP)
    with running(*callbacks, directory=folder / "second", state=state) as run:
        run.load_state_dict(json.loads((checkpoint / "state.json").read_text()))
        run.resume_trace(checkpoint)
        run.emit_again("on_train_begin")
        run.emit_save_again(checkpoint)
        yield run


def flags_at(run: CallbackDispatcher, steps: int) -> list[bool]:
    """Return for some steps whether an evaluation was asked for."""
    return [run.step().should_evaluate for _ in range(steps)]


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("kept", [True, False])
def test_a_run_resumed_from_there_decides_as_the_uninterrupted_one(
    tmp_path: Path, lag: int, kept: bool
) -> None:
    with saved(tmp_path, opened(lag), steps=5) as whole:
        pass
    if not kept:
        (tmp_path / "checkpoint" / FILE).unlink()
    again = opened(lag)
    with resumed(tmp_path, again) as run:
        assert run.control.should_evaluate is (lag == 0)
        assert flags_at(run, 5) == [step == lag for step in range(1, 6)]
    assert again.asked == ([] if kept else [STEP])
    assert lines_of(trace_of(run)) == lines_of(trace_of(whole))


def test_a_decision_is_kept_when_it_is_in_though_it_is_not_due(tmp_path: Path) -> None:
    slow = OnSave(lag=9)
    with saved(tmp_path, slow, steps=1) as run:
        assert note(tmp_path / "checkpoint")["answers"] == {}
        slow.open.set()

        def answers() -> Any:
            run.step()
            return note(tmp_path / "checkpoint")["answers"]

        found = eventually(answers)
    assert found == {"OnSave": {"flags": {"should_evaluate": True}, "outcome": "decided"}}


def test_the_next_checkpoint_waits_for_it_and_has_it_kept(tmp_path: Path) -> None:
    slow = OnSave(lag=9)
    with saved(tmp_path, slow) as run:
        threading.Timer(0.02, slow.open.set).start()
        assert len(run.state_dict()["pending"]) == 1
        assert set(note(tmp_path / "checkpoint")["answers"]) == {"OnSave"}


def test_what_a_def_hook_set_on_it_holds_too_and_the_hook_is_not_called_again(
    tmp_path: Path,
) -> None:
    with saved(tmp_path, CutsEpoch()):
        assert note(tmp_path / "checkpoint")["flags"] == {"should_epoch_stop": True}

    class Fails(CutsEpoch):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise AssertionError("nobody is told twice that a checkpoint was saved")

    with resumed(tmp_path, Fails()) as run:
        assert run.control.should_epoch_stop


def test_where_nobody_decides_nothing_is_kept(tmp_path: Path) -> None:
    with saved(tmp_path):
        assert not (tmp_path / "checkpoint" / FILE).exists()
    with resumed(tmp_path) as run:
        assert run.control.should_save is False


def test_in_the_companion_nobody_is_asked_again_but_who_has_to_decide(tmp_path: Path) -> None:
    with saved(tmp_path, SavedInCompanion(), WatchesSaves(tmp_path / "told"), steps=2) as run:
        assert run.flush(20)
    (tmp_path / "checkpoint" / FILE).unlink()
    with resumed(tmp_path, SavedInCompanion(), WatchesSaves(tmp_path / "told")) as run:
        assert flags_at(run, 2) == [True, False]
        assert run.flush(20)
    assert (tmp_path / "told").read_text().split() == [str(STEP)]


def test_a_run_that_decided_to_stop_at_the_checkpoint_stops_there_again(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        @decides(lag=1)
        async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == STEP - 1

    with saved(tmp_path, Stops()) as run:
        assert run.control.should_training_stop
    with resumed(tmp_path, Stops()) as run:
        assert run.control.should_training_stop


def test_a_stop_that_was_requested_is_not_repeated(tmp_path: Path) -> None:
    with running(directory=tmp_path) as run:
        run.request(should_training_stop=True)
        assert run.step().should_training_stop
        state = run.state_dict()
    with running(directory=tmp_path, state=TrainerState(global_step=1)) as again:
        again.load_state_dict(state)
        assert not again.emit_again("on_train_begin").should_training_stop


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with saved(tmp_path, opened(1), steps=2):
        pass
    (tmp_path / "checkpoint" / FILE).write_text("{")
    with (
        pytest.raises(ConfigurationError, match=r"on_save\.json is damaged .*asked again"),
        resumed(tmp_path, opened(1)),
    ):
        pass


@pytest.mark.parametrize("text", [b'{"flags": {"x": true}, "answers": {}, "seen": null}', b"\xff"])
def test_a_file_with_nonsense_is_named(tmp_path: Path, text: bytes) -> None:
    with saved(tmp_path, opened(1), steps=2):
        pass
    (tmp_path / "checkpoint" / FILE).write_bytes(text)
    with pytest.raises(ConfigurationError, match=r"damaged"), resumed(tmp_path, opened(1)):
        pass


@pytest.mark.parametrize("name", [".", ""])
def test_a_checkpoint_is_where_the_program_was_when_it_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.chdir(tmp_path / "checkpoint")
    decides = opened(1)
    decides.open.clear()
    with running(decides, directory=tmp_path / "run") as run:
        run.step()
        run.emit_save(name)
        monkeypatch.chdir(tmp_path)
        decides.open.set()
        assert flags_at(run, 2) == [True, False]
    assert (tmp_path / "checkpoint" / FILE).exists()


@pytest.mark.parametrize("spoil", [Path.rmdir, lambda folder: (folder / FILE).mkdir()])
def test_a_checkpoint_that_cannot_take_it_costs_nothing_but_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    spoil(checkpoint)
    with running(opened(1), directory=tmp_path) as run:
        run.step()
        run.emit_save(checkpoint)
        assert flags_at(run, 2) == [True, False]
    said = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert len(said) == checkpoint.exists()
    assert not list(tmp_path.glob("*.new"))
