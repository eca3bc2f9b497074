"""Whole runs with the W&B tracker: kills, outages, resumption, and a flood of steps."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import asynccb
from asynccb._cli import main
from tests.support.running import running
from tests.support.waiting import eventually
from tests.trackers.trainings import falling, flood
from tests.trackers.wandb.server import Fault, WandbServer


def losses(wandb: WandbServer) -> list[tuple[int, float]]:
    return [(line["train/global_step"], line["train/loss"]) for line in wandb.run().history]


def check_rate(wandb: WandbServer) -> None:
    """The vendor takes two requests a second for each run; more would have been refused."""
    assert wandb.refused == []
    times = wandb.run().times
    assert all(later - sooner > 0.45 for sooner, later in pairwise(times))


def test_twenty_thousand_steps_in_ten_seconds_arrive_complete_in_order_and_within_the_limits(
    wandb: WandbServer, tmp_path: Path
) -> None:
    flood(asynccb.WandbCallback(), tmp_path)
    assert losses(wandb) == falling(20_000)
    assert wandb.run().resent == 0
    assert wandb.run().state == "finished"
    check_rate(wandb)
    assert len(wandb.run().bodies) < 30


def test_a_server_that_is_away_in_the_middle_ends_up_with_every_line_once(
    wandb: WandbServer, tmp_path: Path
) -> None:
    with running(asynccb.WandbCallback(), directory=tmp_path) as run:
        run.emit("on_train_begin")
        for step in range(1, 301):
            run.step(logs={"loss": 1 / step})
        assert run.flush(30)
        wandb.stop()
        for step in range(301, 1001):
            run.step(logs={"loss": 1 / step})
        eventually(lambda: run.statistics().callbacks["WandbCallback"].retried >= 2, 30.0)
        wandb.start()
        run.emit("on_train_end")
        assert run.flush(60)
    assert losses(wandb) == falling(1000)
    assert wandb.run().state == "finished"


def test_faults_that_pass_cost_no_line_and_double_none(wandb: WandbServer, tmp_path: Path) -> None:
    left = [
        Fault(429, b"slow", {"Retry-After": "1"}),
        Fault(429, b"", {"RateLimit-Reset": "1"}),
        Fault(500, b"oops"),
        Fault(408),
        Fault(),  # the connection is cut
        Fault(obeys=True),  # and here, the answer is lost
        Fault(200, b"<html>please log in</html>"),
    ]
    seen = 0

    def misbehave(request: Any) -> Fault | None:
        nonlocal seen
        if not request.path.endswith("file_stream"):
            return None
        seen += 1
        return left.pop(0) if seen > 1 and left else None

    wandb.faults = misbehave
    with running(asynccb.WandbCallback(), directory=tmp_path) as run:
        run.emit("on_train_begin")
        for step in range(1, 101):
            run.step(logs={"loss": 1 / step})
            if step == 50:
                assert run.flush(30)
        run.emit("on_train_end")
        run.close(timeout=60.0)
    assert left == []
    assert losses(wandb) == falling(100)
    assert wandb.run().state == "finished"
    assert wandb.run().resent >= 50
    assert run.statistics().callbacks["WandbCallback"].rejected == 0


def test_a_training_that_goes_on_with_the_same_id_goes_on_in_the_same_run(
    wandb: WandbServer, tmp_path: Path
) -> None:
    state = asynccb.TrainerState()
    for last in (50, 80):
        tracker = asynccb.WandbCallback(run_id="again", resume="allow")
        with running(tracker, directory=tmp_path, state=state) as run:
            run.emit("on_train_begin")
            while state.global_step < last:
                run.step(logs={"loss": 1 / (state.global_step + 1)})
            run.emit("on_train_end")
    assert losses(wandb) == falling(80)
    assert [line["_step"] for line in wandb.run().history] == list(range(80))


def test_the_stop_button_ends_the_training_at_a_step(wandb: WandbServer, tmp_path: Path) -> None:
    tracker = asynccb.WandbCallback(system_metrics=1)
    with running(tracker, directory=tmp_path) as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        assert run.flush(30)
        wandb.run().stop = True

        def step() -> bool:
            return bool(run.step(logs={"loss": 1.0}).should_training_stop)

        eventually(step, 30.0)
    assert "system.proc.memory.rssMB" in wandb.run().events[0]


class Ones(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((4,), float(index))}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(x).square().mean()}


def test_a_trainer_logs_what_the_variables_of_transformers_ask_for(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    monkeypatch.setenv("WANDB_WATCH", "all")
    monkeypatch.setenv("WANDB_CONSOLE", "wrap")
    monkeypatch.setattr("asynccb.trackers.wandb.training._LEAST_FREQUENCY", 2)
    args = asynccb.TrainingArguments(
        str(tmp_path / "out"), max_steps=5, logging_steps=1, save_steps=2,
        report_to="wandb", run_name="whole", per_device_train_batch_size=4, disable_tqdm=True,
    )  # fmt: skip
    model = Net()
    trainer = asynccb.Trainer(model, args, train_dataset=Ones())
    trainer.train()
    print("the training is over")
    trainer.dispatcher.close()
    run = wandb.run("huggingface")
    assert wandb.refused == []
    assert run.state == "finished"
    steps = [line["train/global_step"] for line in run.history if "train/loss" in line]
    assert steps == [1, 2, 3, 4, 5]
    watched = [line for line in run.history if "gradients/layer.weight" in line]
    assert [line["train/global_step"] for line in watched] == [2, 4]
    for line in watched:
        assert line.keys() >= {"gradients/layer.bias", "parameters/layer.weight"}
        counted = line["parameters/layer.weight"]
        assert (sum(counted["values"]), len(counted["bins"])) == (8, 65)
    assert "gradients/layer.weight" not in run.summary
    assert run.summary["train_loss"] == pytest.approx(trainer.state.log_history[-1]["train_loss"])
    assert any(line.endswith(" the training is over") for line in run.console)
    first, *checkpoints, final = wandb.versions("model-whole")
    assert first.contents["model_architecture.txt"].decode() == str(model)
    assert [version.input["historyStep"] for version in checkpoints] == sorted(
        version.input["historyStep"] for version in checkpoints
    )
    steps = [alias for version in checkpoints for alias in version.aliases if "step" in alias]
    assert steps == [f"checkpoint_global_step_{step}" for step in (2, 4, 5)]
    assert "trainer_state.json" in checkpoints[0].contents
    assert final.aliases == {"latest", "final_model"}
    assert final.metadata["final_model"] is True
    stored = final.contents["model.safetensors"]
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "model.safetensors").write_bytes(stored)
    from asynccb.checkpoint.weights import load_weights

    again = Net()
    load_weights(again, tmp_path / "final")
    assert torch.equal(again.layer.weight, model.layer.weight)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in left if name.startswith(".wandb")} == set()


def test_a_key_that_is_refused_costs_telemetry_and_not_the_run(
    wandb: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.faults = lambda request: Fault(401, json.dumps({"error": "bad key"}).encode())
    with running(asynccb.WandbCallback(), directory=tmp_path) as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        eventually(lambda: run.statistics().callbacks["WandbCallback"].disabled)
    assert "WANDB_API_KEY" in caplog.text
    wandb.faults = lambda request: None
    assert main(["sync", str(tmp_path)]) == 0
    assert losses(wandb) == falling(1)


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        ("gradients", {"gradients"}),
        ("parameters", {"parameters"}),
        ("all", {"gradients", "parameters"}),
        ("false", set()),
        (None, set()),
    ],
)
def test_the_variable_says_what_is_watched(
    value: str | None,
    groups: set[str],
    wandb: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if value is not None:
        monkeypatch.setenv("WANDB_WATCH", value)
    monkeypatch.setattr("asynccb.trackers.wandb.training._LEAST_FREQUENCY", 2)
    args = asynccb.TrainingArguments(
        str(tmp_path / "out"), max_steps=2, logging_steps=1, report_to="wandb", disable_tqdm=True
    )
    trainer = asynccb.Trainer(Net(), args, train_dataset=Ones())
    trainer.train()
    trainer.dispatcher.close()
    logged = {name for line in wandb.run("huggingface").history for name in line}
    assert {name.partition("/")[0] for name in logged if name.endswith("layer.weight")} == groups


def test_where_the_best_model_is_loaded_at_the_end_it_is_the_one_uploaded(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")

    class Worse(asynccb.TrainerCallback):
        """Make every evaluation after the first a bad one."""

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            metrics["eval_loss"] = float(state.global_step)

    args = asynccb.TrainingArguments(
        str(tmp_path / "out"), max_steps=3, eval_strategy="steps", eval_steps=1, save_steps=1,
        load_best_model_at_end=True, report_to="wandb", run_name="best", disable_tqdm=True,
    )  # fmt: skip
    trainer = asynccb.Trainer(
        Net(), args, train_dataset=Ones(), eval_dataset=Ones(), callbacks=[Worse]
    )
    trainer.train()
    trainer.dispatcher.close()
    best = tmp_path / "out" / "checkpoint-1" / "model.safetensors"
    *_, final = wandb.versions("model-best")
    assert final.contents["model.safetensors"] == best.read_bytes()
