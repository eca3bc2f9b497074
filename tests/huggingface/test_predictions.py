"""`predict` in our Trainer and in that of transformers: its events, and what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.events import EVENTS
from asynccb.trainer import Trainer
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import SPEED, Line, Model, arguments

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Watch(transformers.TrainerCallback):
    """Write down each event, its keywords that are not None, and the names of its metrics."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, frozenset[str], tuple[str, ...]]] = []


def _hook(event: str) -> Any:
    def hook(self: Watch, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        given = frozenset(name for name, value in keywords.items() if value is not None)
        metrics = keywords.get("metrics") or {}
        named = tuple(name for name in metrics if not name.endswith((*SPEED, "preparation_time")))
        self.seen.append((event, given, named))

    return hook


for _event in EVENTS:
    setattr(Watch, _event, _hook(_event))


def test_a_prediction_is_its_steps_and_one_event_with_its_metrics(tmp_path: Path) -> None:
    theirs, ours = Watch(), Watch()
    their_trainer(tmp_path / "theirs", theirs).predict(Line(16))
    with Trainer(Model(), arguments(tmp_path / "ours"), callbacks=[ours]) as trainer:
        trainer.predict(Line(16))
    assert [event for event, _, _ in ours.seen] == [
        "on_init_end", "on_prediction_step", "on_prediction_step", "on_predict",
    ]  # fmt: skip
    assert ours.seen[1:] == [
        (event, given - {"train_dataloader"}, named) for event, given, named in theirs.seen[1:]
    ]
    assert ours.seen[-1][2] == ("test_loss",)
