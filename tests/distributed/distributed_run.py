"""Run under `torchrun` by `test_process_group.py`: write down what each rank sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from asynccb.distributed import process_group as distributed
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, Recorder, arguments, history, weights

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 3,
    "eval_strategy": "epoch",
    "save_steps": 5,
}
TRAINED, EVALUATED = 62, 19  # neither divides evenly


def report(trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": {name: float(value) for name, value in weights(trainer).items()},
        "history": history(trainer),
    }


def run(directory: Path, length: int, dropout: float) -> dict[str, Any]:
    def model() -> Model:
        return Model(dropout)

    recorder = Recorder()
    data = {"train_dataset": Line(length), "eval_dataset": Line(EVALUATED, seed=1)}
    args = arguments(directory, **SETTINGS)
    with Trainer(model(), args, callbacks=[recorder], **data) as trainer:
        trainer.train()
        result = report(trainer) | {"events": recorder.events, "rank": distributed.rank()}
        prediction = trainer.predict(data["eval_dataset"])
        result["predictions"] = prediction.predictions.tolist()
        result["labels"] = prediction.label_ids.tolist()
        result["loss"] = prediction.metrics["test_loss"]
    with Trainer(model(), args, **data) as resumed:
        resumed.train(resume_from_checkpoint=directory / "checkpoint-5")
        result["resumed"] = report(resumed)
    return result


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {
        "noisy": run(folder / "noisy", TRAINED, dropout=0.2),
        "plain": run(folder / "plain", 64, dropout=0.0),
    }
    (folder / f"rank-{distributed.rank()}.json").write_text(json.dumps(results))
