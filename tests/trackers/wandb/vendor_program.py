"""Log a run with the vendor's own package: MODE (whole, resume, idle, killed) PROJECT RUN_ID."""

import os
import signal
import sys
import time
from pathlib import Path

import wandb

mode, project, run_id = sys.argv[1:]
settings = wandb.Settings(
    x_stats_sampling_interval=1.0,
    x_file_stream_transmit_interval=1.0,
    x_disable_stats=mode == "idle",
)
run = wandb.init(
    project=project,
    entity="ent" if mode == "idle" else None,
    id=run_id,
    name="vendor",
    config={"lr": 0.1, "nest": {"a": 1}},
    tags=["t1"],
    group="g",
    job_type="train",
    notes="n",
    resume="must" if mode in ("resume", "idle") else None,
    settings=settings,
)
run.define_metric("train/global_step")
run.define_metric("*", step_metric="train/global_step", step_sync=True)
print("a line of the console")
first = run.step
for number in range(5):
    values = {"train/loss": 1 / (number + 1), "train/nan": float("nan")}
    values["gradients/w"] = wandb.Histogram([1.0, 2.0, 3.0])
    run.log({**values, "train/global_step": first + number + 1})
    time.sleep(0.3)
if mode == "idle":
    time.sleep(70.0)  # until it says nothing, to say that it lives
if mode == "killed":
    time.sleep(2.0)
    os.kill(os.getpid(), signal.SIGKILL)
run.summary["train_loss"] = 0.25
run.config["model/num_parameters"] = 10
artifact = wandb.Artifact("model-vendor", type="model", metadata={"k": 1})
Path("weights").write_bytes(b"weights" * 100)
artifact.add_file("weights")
run.log_artifact(artifact, aliases=["best"])
run.finish()
