"""Log a run with the vendor's own package: MODE (whole, get, failed, stopped) KEY."""

import sys
import time
from pathlib import Path

import comet_ml

mode, key = sys.argv[1:]
experiment = comet_ml.start(
    mode="get" if mode == "get" else "create",
    experiment_key=key,
    experiment_config=comet_ml.ExperimentConfig(
        name="vendor", tags=["t1"], log_git_metadata=False, auto_log_co2=False
    ),
)
experiment.set_model_graph("Linear()")
experiment.log_parameters({"args": {"lr": 0.1, "names": ["a", "b"], "none": None, "on": True}})
for step in range(1, 6):
    values = {"train/loss": 1 / step, "train/nan": float("nan"), "train/text": "text"}
    experiment.log_metrics(values, step=step, epoch=step / 10)
    time.sleep(0.2)
Path("out").mkdir(exist_ok=True)
for name in ("weights.bin", "README"):
    Path("out", name).write_bytes(b"weights" * 100)
experiment.log_asset_folder("out", recursive=True, log_file_name=True, step=5)
while mode == "stopped":  # until it hears of that, and raises
    experiment.log_metric("more", 1.0)
    time.sleep(0.3)
if mode == "failed":
    raise RuntimeError("on purpose")
experiment.end()
comet_ml.API().get_experiment_by_key(key).get_metrics_summary()
