"""The same run in `transformers.Trainer` and in ours: the same events and the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import SPEED, Recorder, train, weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Same(transformers.TrainerCallback):
    """Write down what our `Recorder` writes down."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        for event in dir(Recorder):
            if event.startswith("on_"):
                setattr(self, event, getattr(self.recorder, event))


def theirs(directory: Path, **settings: Any) -> tuple[Recorder, transformers.Trainer]:
    same = Same()
    trainer = their_trainer(directory, same, **settings)
    trainer.train()
    return same.recorder, trainer


def comparable(entries: list[dict[str, Any]]) -> list[Any]:
    """The entries without what depends on the clock, as something that `approx` takes."""
    ignored = (*SPEED, "preparation_time")
    return [
        {
            name: pytest.approx(value, rel=1e-5)
            for name, value in entry.items()
            if not name.endswith(ignored)
        }
        for entry in entries
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"logging_steps": 3, "eval_strategy": "steps", "eval_steps": 5, "save_steps": 7},
        {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"},
        {
            "gradient_accumulation_steps": 3,
            "logging_steps": 2,
            "logging_first_step": True,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "max_grad_norm": 0.5,
        },
    ],
    ids=["default", "steps", "epochs", "accumulation"],
)
def test_events_flags_and_numbers_are_those_of_transformers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    expected, reference = theirs(tmp_path / "theirs", **settings)
    recorder = Recorder()
    ours = train(tmp_path / "ours", recorder, **settings)
    assert recorder.events == expected.events
    assert recorder.steps == expected.steps
    assert recorder.flags == expected.flags
    names = [list(entry) for entry in expected.logs]
    assert [list(entry) for entry in recorder.logs] == names
    entries = [
        {name: value for name, value in entry.items() if not name.endswith(SPEED)}
        for entry in ours.state.log_history
    ]
    assert entries == comparable(reference.state.log_history)
    for name, value in weights(ours).items():
        assert float(value) == pytest.approx(float(reference.model.state_dict()[name]), rel=1e-5)


def test_a_checkpoint_of_transformers_is_resumed_with_the_same_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"save_steps": 12, "lr_scheduler_type": "constant"}
    _, reference = theirs(tmp_path, **settings)
    ours = train(tmp_path / "ours", resume=tmp_path / "checkpoint-12", **settings)
    assert ours.state.global_step == 24
    for name, value in weights(ours).items():
        assert float(value) == pytest.approx(float(reference.model.state_dict()[name]), rel=1e-5)
    assert "lacks loop.pt" in caplog.text


def mixtral() -> transformers.PreTrainedModel:
    config = transformers.MixtralConfig(
        vocab_size=17,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    return transformers.MixtralForCausalLM(config)


def marian() -> transformers.PreTrainedModel:
    config = transformers.MarianConfig(
        vocab_size=17,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=8,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    return transformers.MarianMTModel(config)


@pytest.mark.parametrize("make", [mixtral, marian])
def test_a_model_that_transformers_writes_under_other_names_or_in_part_is_resumed(
    tmp_path: Path, make: Callable[[], transformers.PreTrainedModel]
) -> None:
    tokens = {"input_ids": torch.arange(8), "labels": torch.arange(8)}
    given = {"train_dataset": [tokens] * 4}
    whole = train(tmp_path, model=make(), given=given, max_steps=4, save_steps=2)
    resumed = train(
        tmp_path, model=make(), given=given, max_steps=4, resume=tmp_path / "checkpoint-2"
    )
    torch.testing.assert_close(weights(resumed), weights(whole))
