"""Checkpoints: whole or not there, rotated by age, and the best one kept."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks import EarlyStoppingCallback
from asynccb.checkpoint import folders as checkpoint
from asynccb.checkpoint import last_checkpoint, list_checkpoints
from asynccb.checkpoint.model_files import save_weights
from asynccb.checkpoint.weights import load_weights
from tests.support.regression import Line, Model, Recorder, train, weights


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2)
    broken = tmp_path / "checkpoint-2" / "optimizer.pt"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match=r"optimizer\.pt is damaged"):
        train(tmp_path, max_steps=3, resume=tmp_path / "checkpoint-2")


def test_a_checkpoint_holds_all_that_a_resume_needs(tmp_path: Path) -> None:
    train(tmp_path, max_steps=1)
    assert {path.name for path in (tmp_path / "checkpoint-1").iterdir()} == {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "loop.pt",
        "training_args.json",
        "trainer_state.json",
    }


def test_no_reader_ever_sees_half_a_checkpoint(tmp_path: Path) -> None:
    done = threading.Event()
    seen: set[int] = set()
    halves: list[Path] = []

    def read() -> None:
        while not done.is_set():
            for path in list_checkpoints(tmp_path):
                seen.add(int(path.name.partition("-")[2]))
                if not (path / checkpoint.STATE_FILE).is_file():
                    halves.append(path)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        train(tmp_path, max_steps=60, save_steps=1)
    finally:
        done.set()
        reader.join()
    assert halves == []
    assert seen


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-1"

    def save() -> None:
        with checkpoint.writing(target, owner=True) as folder:
            (folder / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save()
    assert list(tmp_path.iterdir()) == []


def test_a_second_save_of_a_step_takes_the_place_of_the_first(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-1"
    for content in ("old", "new"):
        with checkpoint.writing(target, owner=True) as folder:
            (folder / content).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_the_last_checkpoint_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-x", ".checkpoint-11.incomplete"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-99").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [5, 10, 15, 20, 25]),
        (2, None, [20, 25]),
        (2, 5, [5, 25]),
        (1, 25, [25]),
        (1, 5, [5, 25]),
        (3, 20, [15, 20, 25]),
        (9, 5, [5, 10, 15, 20, 25]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    tmp_path: Path, limit: int | None, best: int | None, left: list[int]
) -> None:
    for step in (5, 10, 15, 20, 25):
        (tmp_path / f"checkpoint-{step}").mkdir()
    written = tmp_path / "checkpoint-25"
    checkpoint.rotate(written, limit, f"{tmp_path}/checkpoint-{best}" if best else None)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in left]


def test_rotation_deletes_what_an_earlier_run_has_left_whatever_its_steps(tmp_path: Path) -> None:
    for age, step in enumerate((7, 40, 6, 30)):
        state = tmp_path / f"checkpoint-{step}" / checkpoint.STATE_FILE
        state.parent.mkdir()
        state.touch()
        os.utime(state, (100.0 - age, 100.0 - age))
    checkpoint.rotate(tmp_path / "checkpoint-6", 2, None)
    left = {path.name for path in list_checkpoints(tmp_path)}
    assert left == {"checkpoint-6", "checkpoint-7"}


def test_a_best_checkpoint_in_another_folder_takes_no_place_in_this_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        (tmp_path / "out" / f"checkpoint-{step}").mkdir(parents=True)
    checkpoint.rotate(tmp_path / "out" / "checkpoint-3", 2, str(tmp_path / "checkpoint-1"))
    left = [path.name for path in list_checkpoints(tmp_path / "out")]
    assert left == ["checkpoint-2", "checkpoint-3"]


def test_a_second_run_in_a_folder_keeps_what_it_saves(tmp_path: Path) -> None:
    train(tmp_path, max_steps=8, save_steps=4)
    train(tmp_path, max_steps=3, save_steps=1, save_total_limit=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


def test_training_keeps_no_more_checkpoints_than_asked_for(tmp_path: Path) -> None:
    train(tmp_path, max_steps=11, save_steps=5, save_total_limit=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]


class Scripted(Model):
    """Evaluate to losses given in advance."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = list(scores)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        loss, y = super().forward(x, labels)
        return (loss if self.training else torch.tensor(self.scores.pop(0))), y


BEST: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
    "load_best_model_at_end": True,
    "max_steps": 8,
}


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    evaluated = {"eval_dataset": Line(8)}
    trainer = train(tmp_path, model=Scripted(3, 1, 2, 1), given=evaluated, **BEST)
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (1, 4)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    best = Scripted()
    load_weights(best, tmp_path / "checkpoint-4")
    assert weights(trainer) == dict(best.state_dict())


def test_the_best_model_may_be_the_last_one(tmp_path: Path) -> None:
    evaluated = {"eval_dataset": Line(8)}
    trainer = train(tmp_path, model=Scripted(3, 2, 1, 0.5), given=evaluated, **BEST)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-8")


def test_a_limit_of_one_leaves_the_best_alone_at_the_end(tmp_path: Path) -> None:
    evaluated = {"eval_dataset": Line(8)}
    train(tmp_path, model=Scripted(3, 1, 2, 2), given=evaluated, **BEST, save_total_limit=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-4"]


def test_saving_the_best_saves_improvements_only(tmp_path: Path) -> None:
    train(
        tmp_path,
        model=Scripted(3, 1, 2, 0.5),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="loss",
        given={"eval_dataset": Line(8)},
    )
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        f"checkpoint-{n}" for n in (1, 2, 4)
    ]


def test_a_best_step_beside_the_saves_is_saved(tmp_path: Path) -> None:
    trainer = train(
        tmp_path,
        EarlyStoppingCallback(early_stopping_patience=1),
        model=Scripted(1, 2),
        given={"eval_dataset": Line(8)},
        **BEST | {"save_steps": 8},
    )
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")


def test_a_best_step_that_was_never_saved_keeps_the_last_weights_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asks = Recorder(on_step_end=lambda s, c: setattr(c, "should_evaluate", s.global_step == 2))
    trainer = train(
        tmp_path,
        asks,
        model=Scripted(1, 2),
        given={"eval_dataset": Line(8)},
        max_steps=4,
        load_best_model_at_end=True,
        save_strategy="no",
    )
    assert trainer.state.best_metric == 1
    assert trainer.state.best_model_checkpoint is None
    assert "nothing was saved at the best step" in caplog.text


def test_a_checkpoint_of_an_earlier_run_is_never_the_best_of_this_one(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2)
    trainer = train(
        tmp_path,
        model=Scripted(1, 2),
        given={"eval_dataset": Line(8)},
        **BEST | {"max_steps": 4, "save_steps": 4, "load_best_model_at_end": False},
        metric_for_best_model="loss",
    )
    assert trainer.state.best_global_step == 2
    assert trainer.state.best_model_checkpoint is None


def test_a_checkpoint_counts_that_was_saved_before_the_best_evaluation_of_its_step(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "eval_strategy": "epoch",
        "save_steps": 8,
        "max_steps": 16,
        "metric_for_best_model": "loss",
    }
    train(tmp_path, model=Scripted(1, 2), given={"eval_dataset": Line(8)}, **settings)
    resumed = train(
        tmp_path / "resumed",
        model=Scripted(1, 2),
        resume=tmp_path / "checkpoint-8",
        given={"eval_dataset": Line(8)},
        **settings,
    )
    assert resumed.state.best_model_checkpoint == str(tmp_path / "checkpoint-8")


def test_checkpoints_stay_in_one_place_when_the_program_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    def leave(state: TrainerState, control: Any) -> None:
        if state.global_step == 3:
            os.chdir(elsewhere)

    trainer = train(
        Path("out"),
        Recorder(on_step_end=leave),
        model=Scripted(1, 2),
        given={"eval_dataset": Line(8)},
        **BEST | {"max_steps": 4},
    )
    names = [path.name for path in list_checkpoints(tmp_path / "out")]
    assert names == ["checkpoint-2", "checkpoint-4"]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-2")


def test_a_run_that_was_moved_finds_its_best_checkpoint_where_it_is_resumed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"given": {"eval_dataset": Line(8)}}
    train(tmp_path / "here", model=Scripted(1, 2), **options, **BEST | {"max_steps": 4})
    there = (tmp_path / "here").rename(tmp_path / "there")
    resumed = train(there, model=Scripted(2, 2), resume=there / "checkpoint-4", **options, **BEST)
    assert resumed.state.best_model_checkpoint == str(there / "checkpoint-2")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    train(tmp_path, max_steps=1)
    with pytest.raises(ConfigurationError, match=r"missing \['bias', 'weight'\], unexpected"):
        load_weights(nn.Linear(1, 1), tmp_path / "checkpoint-1")


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("model.safetensors", b"\x08\x00"),
        ("model.safetensors.index.json", b'{"weight_map": '),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "shard"}}'),
        ("pytorch_model.bin", b"PK\x03\x04"),
        ("pytorch_model.bin", b""),
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, name: str, left: bytes) -> None:
    (tmp_path / name).write_bytes(left)
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}/\S+ is damaged"):
        load_weights(Model(), tmp_path)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
        model["head"].weight = model["embed"].weight
        return model

    saved, loaded = tied(), tied()
    save_weights(saved, tmp_path)
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded["head"].weight, saved["embed"].weight)
    assert loaded["head"].weight is loaded["embed"].weight


def test_a_part_that_a_model_calls_its_module_is_not_taken_for_the_model(tmp_path: Path) -> None:
    model = nn.Module()
    model.module, model.head = nn.Linear(1, 2), nn.Linear(2, 1)
    save_weights(model, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


def test_the_arguments_are_written_without_their_secrets(tmp_path: Path) -> None:
    train(tmp_path, max_steps=1, hub_token="hf_geheim")
    folder = tmp_path / "checkpoint-1"
    written = json.loads((folder / "training_args.json").read_text())
    assert written["hub_token"] == "<HUB_TOKEN>"
    assert not any(b"hf_geheim" in path.read_bytes() for path in folder.iterdir())


@for_all(seed=st.integers(0, 2**40))
def test_the_random_generators_go_on_where_they_were(seed: int) -> None:
    import numpy as np

    from asynccb.trainer import random_state

    def draw() -> tuple[float, float, float, float]:
        return random.random(), random.gauss(), np.random.random(), float(torch.rand(()))

    random_state.seed_all(seed)
    draw()
    state = random_state.capture()
    expected = draw()
    random_state.restore(state)
    assert draw() == expected


def test_the_state_of_a_checkpoint_reads_back(tmp_path: Path) -> None:
    trainer = train(tmp_path, max_steps=2, logging_steps=1)
    state = TrainerState.load_from_json(str(tmp_path / "checkpoint-2" / "trainer_state.json"))
    assert state.log_history == trainer.state.log_history[:2]
    assert state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"] is True
