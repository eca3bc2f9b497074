"""The same callbacks in our Trainer and, by the bridge, in theirs: one trace, the same points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._decisions.trace import TRACE_FILE
from tests.huggingface.their_trainer import their_trainer
from tests.support.regression import SPEED, train
from tests.trackers.mlflow.server import RealMLflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.usefixtures("mlflow_environment"),
]

SETTINGS: dict[str, Any] = {
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 8,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 4,
}


class Steers(asynccb.TrainerCallback):
    """Ask for an evaluation and a checkpoint by what is logged, and for the end."""

    @asynccb.decides(lag=1)
    async def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs and state.global_step % 4 == 2:
            control.should_evaluate = True

    @asynccb.decides(lag=2)
    async def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        control.should_save = True
        if state.global_step >= 10:
            control.should_training_stop = True

    @asynccb.decides(lag=0)
    async def on_substep_end(self, args, state, control, **kwargs):
        control.should_log = True


def trace(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.glob(f"asynccb/*/{TRACE_FILE}")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "waited"} for line in lines]


def points(server: RealMLflow, experiment: str) -> dict[str, list[tuple[int, float]]]:
    """
    All points of the experiment's one run but those of the clock, by metric.

    The epoch comes with the loss and again with the evaluation, at one step, and is one point if it
    does so within a millisecond; so it is always one here.
    """
    (run,) = server.runs(experiment)
    assert run["info"]["status"] == "FINISHED"
    return {
        metric["key"]: sorted(
            {
                (step, value)
                for step, value, _ in server.points(run["info"]["run_id"], metric["key"])
            }
        )
        for metric in run["data"]["metrics"]
        if not metric["key"].endswith((*SPEED, "preparation_time"))
    }


def test_the_bridge_and_our_trainer_decide_the_same_and_send_the_same_points(
    tmp_path: Path, mlflow_server: RealMLflow
) -> None:
    def callbacks(name: str) -> list[Any]:
        tracker = asynccb.MLflowCallback(tracking_uri=mlflow_server.uri, experiment_name=name)
        return [Steers(), tracker]

    ours = train(tmp_path / "ours", *callbacks("in-ours"), **SETTINGS)
    with asynccb.AsyncCallbacks(callbacks("in-theirs")) as bridge:
        theirs = their_trainer(tmp_path / "theirs", bridge, **SETTINGS)
        theirs.train()

    assert theirs.state.global_step == ours.state.global_step == 12
    assert trace(tmp_path / "theirs") == trace(tmp_path / "ours")
    assert len(trace(tmp_path / "ours")) > 10
    expected, found = points(mlflow_server, "in-ours"), points(mlflow_server, "in-theirs")
    assert sorted(found) == sorted(expected)
    for metric, pairs in expected.items():
        assert [step for step, _ in found[metric]] == [step for step, _ in pairs]
        values = [value for _, value in found[metric]]
        assert values == pytest.approx([value for _, value in pairs], rel=1e-5)
    assert [step for step, _ in found["loss"]] == list(range(1, 13))
