"""Decisions that are pending at a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asynccb import CallbackDispatcher, ConfigurationError, TrainerCallback, TrainerState, decides
from tests.decisions.deciding import Decides, lines_of, saves, saves_at, trace_of
from tests.support.running import Logs, running


def interrupted(directory: Path, *callbacks: Any, steps: int = 3) -> dict[str, Any]:
    """Return the state after some steps, as it comes out of a file."""
    with running(*callbacks, directory=directory) as run:
        list(saves(run, steps))
        state = run.state_dict()
        run.save_trace(directory)
    restored: dict[str, Any] = json.loads(json.dumps(state))
    return restored


def test_a_resumed_run_decides_and_traces_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def deciders() -> list[Decides]:
        return [Decides(saves_at(1, 3, 5), 2), Decides(saves_at(2), 4)]

    with running(*deciders(), directory=tmp_path / "whole") as whole:
        expected = list(saves(whole, 10))
    state = interrupted(tmp_path / "first", *deciders())
    with running(
        *deciders(), directory=tmp_path / "second", state=TrainerState(global_step=3)
    ) as run:
        run.resume_trace(tmp_path / "first")
        run.load_state_dict(state)
        assert [step for step in expected if step > 3] == list(saves(run, 7))
    assert lines_of(trace_of(run)) == lines_of(trace_of(whole))


def test_the_state_waits_for_what_is_pending(tmp_path: Path) -> None:
    state = interrupted(tmp_path, Decides(saves_at(2), 4))
    flags = [each["flags"] for each in state["pending"]]
    assert flags == [{}, {"should_save": True}, {}]


def test_what_is_emitted_again_runs_its_hooks_and_decides_nothing(tmp_path: Path) -> None:
    class AtBegin(TrainerCallback):
        begun = 0

        @decides(lag=0)
        async def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun += 1
            control.should_training_stop = True

    callback = AtBegin()
    with running(callback) as run:
        assert run.emit("on_train_begin").should_training_stop
        assert not run.emit_again("on_train_begin").should_training_stop
        assert run.flush(20)
        assert run.state_dict()["emission"] == 1
    assert callback.begun == 2


def test_a_resumed_dispatcher_emits_its_train_begin_again(tmp_path: Path) -> None:
    state = interrupted(tmp_path, Decides(saves_at()))
    with running(Decides(saves_at())) as run:
        run.load_state_dict(state)
        with run:
            assert run.state_dict()["emission"] == 3


def test_callbacks_that_have_gone_or_come_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Another(Decides): ...

    state = interrupted(tmp_path, Decides(saves_at(3)))
    with running(Another(saves_at()), Logs(), state=TrainerState(global_step=3)) as run:
        run.load_state_dict(state)
        assert list(saves(run, 3)) == []
    assert "Decides decided in the checkpoint's run, and not any more" in caplog.text
    assert "Another decide now, and did not in the checkpoint's run" in caplog.text


@pytest.mark.parametrize("state", [None, {}, {"emission": "1"}, [1]])
def test_something_else_than_a_state_is_refused(state: Any) -> None:
    with running() as run, pytest.raises(ConfigurationError, match="no state of a dispatcher"):
        run.load_state_dict(state)


@pytest.mark.parametrize("nonsense", [{"event": "on_nonsense"}, {"flags": {"nonsense": True}}])
def test_a_state_with_unknown_events_or_flags_is_refused(nonsense: dict[str, Any]) -> None:
    with running(Decides(saves_at(1))) as run:
        run.step(logs={"loss": 1.0})
        state = run.state_dict()
    (pending,) = state["pending"]
    pending.update(nonsense)
    with running() as run, pytest.raises(ConfigurationError, match="no state of a dispatcher"):
        run.load_state_dict(state)


def test_a_replay_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    with running(Decides(saves_at(1, 3, 5), 2), directory=tmp_path / "whole") as whole:
        expected = list(saves(whole, 10))
    state = interrupted(tmp_path / "first", Decides(saves_at(1, 3, 5), 2))
    run = CallbackDispatcher(
        [Decides(saves_at(), 2)],
        state=TrainerState(global_step=3),
        replay=trace_of(whole),
        directory=tmp_path,
    )
    run.load_state_dict(state)
    assert list(saves(run, 7)) == [step for step in expected if step > 3]
    run.close()
