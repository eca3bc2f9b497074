"""
Log to MLflow and TensorBoard, saying after each step that it was emitted, until killed.

Arguments: URI EXPERIMENT FOLDER.
"""

import sys
from itertools import count
from pathlib import Path

import asynccb

uri, experiment, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
run = asynccb.CallbackDispatcher(
    [
        asynccb.MLflowCallback(tracking_uri=uri, experiment_name=experiment),
        asynccb.TensorBoardCallback(logging_dir=str(folder / "tensorboard")),
    ],
    directory=folder / "journal",
)
run.emit("on_train_begin")
for step in count(1):
    run.step(logs={"loss": 1 / step, "accuracy": step / 1e6})
    print(step)
