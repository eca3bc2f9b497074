"""Use the vendor's package: MODE (whole, resume, failed, large, idle, sync) and its ARGUMENTS."""

import sys
import time
from pathlib import Path

import swanlab
from swanlab import Settings

mode, *arguments = sys.argv[1:]
if mode == "sync":
    swanlab.sync(arguments[0])
    sys.exit()
(run_id,) = arguments
parts = {"save_split": 200, "save_part": 100} if mode == "large" else {}
run = swanlab.init(
    project="proj",
    experiment_name="vendor",
    description="d",
    config={"lr": 0.1, "nest": {"a": 1}},
    tags=["t1"],
    group="g",
    job_type="train",
    id=run_id,
    resume="must" if mode == "resume" else "allow",
    settings=Settings(
        core=parts,
        probe={"monitor_interval": 5},
    ),
)
print("a line of the console")
first = 10 if mode == "resume" else 1
for step in range(first, first + 5):
    swanlab.log({"train/loss": 1 / step, "flat": step, "nan": float("nan")}, step=step)
if mode == "failed":
    raise RuntimeError("wanted")
if mode == "idle":
    time.sleep(7.0)  # until it has looked at its machine
Path("weights.bin").write_bytes(b"weights" * 100)
swanlab.save("weights.bin", policy="now")
run.config.update({"added": 5})
swanlab.finish()
