"""What a bridge stores in a checkpoint of transformers, and how a resumed training goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb import AsyncCallbacks
from asynccb._decisions.trace import TRACE_FILE
from tests.huggingface.their_trainer import their_trainer, transformers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Wanders(asynccb.TrainerCallback):
    """Ask for logs and evaluations, two and three steps later, and for the end after step 16."""

    @asynccb.decides(lag=2)
    async def on_step_end(self, args, state, control, **kwargs):
        control.should_log = state.global_step % 3 == 0
        control.should_training_stop = state.global_step == 16

    @asynccb.decides(lag=3)
    async def on_epoch_begin(self, args, state, control, **kwargs):
        control.should_evaluate = True


class Counts(asynccb.TrainerCallback, asynccb.ExportableState):
    """Count steps; a number is the limit it was made with."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1

    def state(self) -> dict[str, Any]:
        return {"args": {"number": self.number}, "attributes": {"steps": self.steps}}


def run(
    directory: Path, *callbacks: Any, resume: Path | None = None, **settings: Any
) -> tuple[transformers.Trainer, AsyncCallbacks]:
    bridge = AsyncCallbacks(callbacks)
    trainer = their_trainer(directory, bridge, **{"save_steps": 5, **settings})
    with bridge:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, bridge


def trace(directory: Path) -> list[dict[str, Any]]:
    """The last trace below a directory, without times."""
    files = sorted(directory.glob(f"asynccb/*/{TRACE_FILE}"), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in files[-1].read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "waited"} for line in lines]


def steps_of_logs(trainer: transformers.Trainer) -> list[tuple[int, str]]:
    kinds = ("loss", "eval_loss", "train_loss")
    return [
        (entry["step"], next(kind for kind in kinds if kind in entry))
        for entry in trainer.state.log_history
    ]


def test_damaged_decisions_of_a_rank_are_named(tmp_path: Path) -> None:
    run(tmp_path / "whole", Wanders)
    damaged = tmp_path / "whole" / "checkpoint-5" / "asynccb_decisions_0.json"
    damaged.write_bytes(b'{"emission": 1')
    with pytest.raises(asynccb.ConfigurationError, match=r"decisions_0\.json is damaged"):
        run(tmp_path / "again", Wanders, resume=damaged.parent)


@pytest.mark.parametrize("step", [5, 10, 15])
def test_a_resumed_training_decides_as_the_uninterrupted_one(tmp_path: Path, step: int) -> None:
    whole, _ = run(tmp_path / "whole", Wanders)
    assert whole.state.global_step == 18
    again, _ = run(tmp_path / "again", Wanders, resume=tmp_path / "whole" / f"checkpoint-{step}")
    assert again.state.global_step == 18
    assert steps_of_logs(again) == steps_of_logs(whole)
    assert trace(tmp_path / "again") == trace(tmp_path / "whole")


def test_a_checkpoint_holds_the_trace_up_to_it(tmp_path: Path) -> None:
    run(tmp_path, Wanders)
    (header, *entries) = (tmp_path / "checkpoint-10" / TRACE_FILE).read_text().splitlines()
    assert "deciders" in header
    assert max(json.loads(entry)["boundary"] for entry in entries) <= 10


def test_states_are_restored_where_the_arguments_say_so_into_the_instances_there(
    tmp_path: Path,
) -> None:
    run(tmp_path, Counts(7), max_steps=5)
    counts = Counts()
    trainer, bridge = run(
        tmp_path,
        counts,
        resume=tmp_path / "checkpoint-5",
        max_steps=8,
        restore_callback_states_from_checkpoint=True,
    )
    assert (counts.number, counts.steps) == (7, 8)
    assert bridge in trainer.callback_handler.callbacks
    assert bridge.callbacks == [counts]

    fresh = Counts()
    run(tmp_path, fresh, resume=tmp_path / "checkpoint-5", max_steps=8)
    assert (fresh.number, fresh.steps) == (0, 3)


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    settings = {
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 2,
        "metric_for_best_model": "loss", "load_best_model_at_end": True, "learning_rate": 0.0,
    }  # fmt: skip
    for kind in (asynccb.EarlyStoppingCallback, transformers.EarlyStoppingCallback):
        run(tmp_path, kind(early_stopping_patience=3), **settings)
        stopping = kind()
        trainer, _ = run(
            tmp_path,
            stopping,
            resume=tmp_path / "checkpoint-2",
            **{**settings, "max_steps": 20, "restore_callback_states_from_checkpoint": True},
        )
        assert stopping.early_stopping_patience == 3
        assert trainer.state.global_step == 4


def test_a_checkpoint_from_a_training_without_it_is_resumed_and_saved_again(
    tmp_path: Path,
) -> None:
    their_trainer(tmp_path, max_steps=4, save_steps=2).train()
    trainer, _ = run(tmp_path, Wanders, resume=tmp_path / "checkpoint-2", save_steps=2, max_steps=4)
    stored = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert "stored" in stored["stateful_callbacks"]["AsyncCallbacks"]["attributes"]
    assert trainer.state.global_step == 4


def test_one_that_is_added_to_a_trainer_later_is_stored_too(tmp_path: Path) -> None:
    trainer = their_trainer(tmp_path, max_steps=2, save_steps=2)
    with AsyncCallbacks([Counts]) as bridge:
        trainer.add_callback(bridge)
        trainer.train()
    stored = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    states = stored["stateful_callbacks"]["AsyncCallbacks"]["attributes"]["stored"]["callbacks"]
    assert states["Counts"]["attributes"] == {"steps": 2}


def test_a_checkpoint_is_resumed_without_it_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, Wanders, max_steps=5)
    trainer = their_trainer(tmp_path, max_steps=8, restore_callback_states_from_checkpoint=True)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert trainer.state.global_step == 8


def test_a_run_of_the_bridge_is_replayed_without_asking(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", Wanders)
    bridge = AsyncCallbacks(
        [Wanders], replay=next((tmp_path / "whole").glob(f"asynccb/*/{TRACE_FILE}"))
    )
    with bridge:
        again = their_trainer(tmp_path / "again", bridge, save_steps=5)
        again.train()
    assert steps_of_logs(again) == steps_of_logs(whole)
    assert again.state.global_step == 18


def test_what_is_decided_on_a_checkpoints_own_save_is_in_it(tmp_path: Path) -> None:
    class StopsAfterSave(asynccb.TrainerCallback):
        @asynccb.decides(lag=3)
        async def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 5

    whole, _ = run(tmp_path / "whole", StopsAfterSave)
    again, _ = run(tmp_path / "again", StopsAfterSave, resume=tmp_path / "whole" / "checkpoint-5")
    assert whole.state.global_step == again.state.global_step == 8


def test_a_tracker_goes_on_with_its_run_and_gets_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def tracker() -> Any:
        return asynccb.TensorBoardCallback(logging_dir=str(tmp_path / "events"))

    run(tmp_path, tracker(), max_steps=5, logging_steps=1)
    run(tmp_path, tracker(), resume=tmp_path / "checkpoint-5", max_steps=8, logging_steps=1)
    reader = EventAccumulator(str(tmp_path / "events"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == list(range(1, 9))
