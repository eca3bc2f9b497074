"""A run that is dropped instead of closed ends as it would have with `close`."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynccb
from asynccb.testing import RecordingTracker
from tests.huggingface.their_trainer import their_trainer
from tests.support.regression import Line, Model, arguments
from tests.support.waiting import eventually, open_descriptors


class Slow(asynccb.TrainerCallback):
    """Take a while for each log, in a lane on the thread."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    async def on_log(self, args, state, control, logs=None, **kwargs):
        await anyio.sleep(0.01)
        self.steps.append(state.global_step)


def trained(folder: Path, *callbacks: Any, **settings: Any) -> asynccb.Trainer:
    """Train a Trainer that nobody closes, and return it."""
    given = arguments(folder, logging_steps=1, **settings)
    trainer = asynccb.Trainer(Model(), given, train_dataset=Line(), callbacks=list(callbacks))
    trainer.train()
    return trainer


def children() -> list[str]:
    """Return the processes that this one has started and not waited for, zombies too."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    return listed.split()


def tracked(path: Path) -> tuple[str | None, int]:
    """Return the status of a recorded run, and how many logs were delivered."""
    tracker = RecordingTracker(path)
    return tracker.status(), len(tracker.recorded("on_log"))


def test_a_trainer_that_is_dropped_has_finished_and_delivered_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Slow()

    def main() -> None:
        trained(tmp_path / "out", slow, RecordingTracker(tmp_path / "recorded"), max_steps=20)

    main()
    assert tracked(tmp_path / "recorded") == ("finished", 21)
    assert slow.steps == [*range(1, 21), 20]
    assert "asynccb: 20 steps" in capsys.readouterr().err


def test_a_training_that_raised_has_failed_although_its_trainer_is_dropped(tmp_path: Path) -> None:
    class Breaks(asynccb.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        trained(tmp_path / "out", Breaks(), RecordingTracker(tmp_path / "recorded"), max_steps=3)
    assert tracked(tmp_path / "recorded")[0] == "failed"


def test_a_training_that_was_interrupted_was_killed_although_its_trainer_is_dropped(
    tmp_path: Path,
) -> None:
    class Interrupts(asynccb.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(
            tmp_path / "out", Interrupts(), RecordingTracker(tmp_path / "recorded"), max_steps=3
        )
    assert tracked(tmp_path / "recorded")[0] == "killed"


def test_a_trainer_made_anew_under_the_same_name_finishes_the_one_before(tmp_path: Path) -> None:
    for number in range(3):
        trainer = trained(tmp_path / "out", RecordingTracker(tmp_path / str(number)), max_steps=2)
        earlier = [tracked(tmp_path / str(n))[0] for n in range(number)]
        assert earlier == ["finished"] * number
    trainer.close()


def test_a_dispatcher_in_a_reference_cycle_ends_when_the_collector_finds_it(tmp_path: Path) -> None:
    run = asynccb.CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    run.emit("on_train_begin")
    run.step(logs={"loss": 1.0})
    run.emit("on_train_end")
    run.itself = run  # type: ignore[attr-defined]
    del run
    gc.collect()
    assert tracked(tmp_path / "recorded") == ("finished", 1)


def test_a_dispatcher_that_is_dropped_within_a_training_has_failed(tmp_path: Path) -> None:
    run = asynccb.CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    run.emit("on_train_begin")
    run.step(logs={"loss": 1.0})
    del run
    assert tracked(tmp_path / "recorded") == ("failed", 1)


def test_a_dispatcher_whose_last_reference_goes_on_another_thread_is_not_waited_for_there(
    tmp_path: Path,
) -> None:
    held = [
        asynccb.CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    ]
    run = weakref.ref(held[0]._run)
    held[0].step(logs={"loss": 1.0})
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert tracked(tmp_path / "recorded")[0] is None
    kept = run()
    assert kept is not None  # until the program ends
    kept.close(30.0, "finished")
    assert tracked(tmp_path / "recorded") == ("finished", 1)


def one_of_ours(folder: Path, number: int) -> None:
    trained(folder / "out", RecordingTracker(folder / str(number)), max_steps=1)


def one_of_theirs(folder: Path, number: int) -> None:
    bridge = asynccb.AsyncCallbacks([RecordingTracker(folder / str(number))])
    their_trainer(folder / "out", bridge, max_steps=1).train()
    del bridge
    gc.collect()  # a Trainer of transformers is a cycle


@pytest.mark.parametrize("one", [one_of_ours, one_of_theirs])
def test_many_trainers_leave_no_process_no_descriptor_and_no_thread(
    tmp_path: Path, one: Callable[[Path, int], Any]
) -> None:
    for number in range(3):
        one(tmp_path, number)
    before = (len(children()), open_descriptors(), threading.active_count())
    for number in range(3, 11):
        one(tmp_path, number)
    eventually(lambda: threading.active_count() <= before[2])
    assert (len(children()), open_descriptors(), threading.active_count()) <= before
    assert {tracked(tmp_path / str(number))[0] for number in range(11)} == {"finished"}


def test_a_program_that_exits_with_0_within_a_trainer_has_finished(tmp_path: Path) -> None:
    class Exits(asynccb.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        trained(tmp_path / "out", Exits(), RecordingTracker(tmp_path / "recorded"), max_steps=3)
    assert tracked(tmp_path / "recorded")[0] == "finished"
