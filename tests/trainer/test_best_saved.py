"""A best model that is to be loaded at the end has been saved, whenever it was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.regression import Recorder, train, weights
from tests.trainer.test_oracle import Evaluations


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_steps": 1, "save_steps": 3},
        {"eval_steps": 1, "save_steps": 0},
        {"eval_steps": 0.3, "save_steps": 0.6},  # evaluations at 2, 4, 6; saves at 4, 6
        {"eval_steps": 2, "save_steps": 4, "eval_delay": 2},
    ],
    ids=str,
)
def test_the_best_of_all_evaluations_is_loaded_at_the_end(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    given = {"max_steps": 6, "eval_strategy": "steps", "save_strategy": "steps", **settings}
    losses = [2.0, 1.0, 3.0, 4.0, 5.0, 6.0]
    if settings["eval_steps"] != 1:
        losses = losses[1:]
    trainer = train(tmp_path / "loaded", Evaluations(*losses), load_best_model_at_end=True, **given)
    best = tmp_path / "loaded" / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(best)
    stop = Recorder(on_step_end=lambda s, c: setattr(c, "should_training_stop", s.global_step == 2))
    stopped = train(tmp_path / "twin", stop, max_steps=6, save_strategy="no")
    assert weights(trainer) == weights(stopped)
