"""The figures of models of transformers in our Trainer and in theirs: the same data and seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import asynccb
from asynccb.testing import RecordingTracker
from tests.huggingface.their_trainer import VERSION, their_trainer, transformers
from tests.support.regression import SPEED, Model, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(VERSION < (5, 24), reason="our Trainer follows transformers 5.24"),
]

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
TEXTS = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(16)]
GIVEN: dict[str, Any] = {"train_dataset": TEXTS, "eval_dataset": TEXTS[:4]}
SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "logging_steps": 1,
    "learning_rate": 0.01,
    "per_device_train_batch_size": 2,
}


def llama() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=32, intermediate_size=16, **SIZES)
    return transformers.LlamaForCausalLM(config)


def gpt2() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def figures(trainer: Any) -> list[dict[str, Any]]:
    """The history without what depends on the clock."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(SPEED)}
        for entry in trainer.state.log_history
    ]


def nearly(entries: list[dict[str, Any]]) -> list[Any]:
    return [pytest.approx(entry, rel=1e-4) for entry in entries]


def both(
    directory: Path, make: Any, given: dict[str, Any] | None = None, **settings: Any
) -> tuple[Any, Any]:
    """Train in our Trainer and in theirs."""
    given, settings = GIVEN | (given or {}), SETTINGS | settings
    theirs = their_trainer(directory / "theirs", model=make(), given=given, **settings)
    theirs.train()
    ours = train(directory / "ours", model=make(), given=given, **settings)
    return ours, theirs


def test_every_figure_of_a_language_model_is_that_of_transformers(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, llama, eval_strategy="steps", eval_steps=1)
    assert figures(ours) == nearly(figures(theirs))
    assert ours.state.total_flos == theirs.state.total_flos > 0


@pytest.mark.parametrize("size", [1, 2])
def test_the_operations_of_a_gpt2_are_those_of_transformers(tmp_path: Path, size: int) -> None:
    ours, theirs = both(tmp_path, gpt2, gradient_accumulation_steps=size)
    assert ours.state.total_flos == theirs.state.total_flos > 0
    stored = [
        json.loads((tmp_path / name / "checkpoint-2" / "trainer_state.json").read_text())
        for name in ("ours", "theirs")
    ]
    assert stored[0]["total_flos"] == stored[1]["total_flos"] == ours.state.total_flos


def test_the_loss_of_a_gpt2_is_the_mean_that_the_model_computes(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, gpt2, max_steps=1, per_device_train_batch_size=16)
    batch = {key: torch.stack([row[key] for row in TEXTS]) for key in TEXTS[0]}
    mean = float(gpt2()(**batch).loss)
    assert ours.state.log_history[0]["loss"] == pytest.approx(mean, rel=1e-5)
    # Of 8 tokens in a row 7 are predicted, and transformers divides by 8.
    assert theirs.state.log_history[0]["loss"] == pytest.approx(mean * 7 / 8, rel=1e-5)


def test_operations_that_are_unknown_are_in_no_log_and_no_file(tmp_path: Path) -> None:
    class Plain(Model):
        num_parameters = None  # type: ignore[assignment]

    tracker = RecordingTracker(str(tmp_path / "events"))
    trainer = train(tmp_path, tracker, model=Plain(), max_steps=2)
    final = trainer.state.log_history[-1]
    assert "train_loss" in final
    assert "total_flos" not in final
    assert "total_flos" not in (tmp_path / "events").read_text()
    assert "train_loss" in (tmp_path / "events").read_text()
    path = tmp_path / "checkpoint-2" / "trainer_state.json"
    assert "total_flos" not in json.loads(path.read_text())
    assert asynccb.TrainerState.load_from_json(str(path)).total_flos == 0


def test_a_model_that_counts_its_parameters_in_another_way_trains(tmp_path: Path) -> None:
    class Other(Model):
        def num_parameters(self) -> int:  # type: ignore[override]
            return 2

    assert train(tmp_path, model=Other(), max_steps=1).state.total_flos == 0
