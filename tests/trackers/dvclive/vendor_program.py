"""
Log with the vendor's own package, in the working directory: whole, resumed, and with us.

Prints the names that it gives the metrics of transformers that it is told.
"""

from __future__ import annotations

import json
import sys

from dvclive import Live
from dvclive.utils import standardize_metric_name

import asynccb


def log(live: Live) -> None:
    """Log three steps, and end."""
    with live:
        live.log_params({"learning_rate": 5e-4, "nested": {"a": [1, 2]}})
        for number in range(3):
            live.log_metric("loss", 1 / (number + 1))
            live.log_metric("eval/loss", float("nan"))
            live.next_step()


log(Live("theirs", exp_name="theirs", exp_message="m"))
log(Live("resumed", dvcyaml=None, resume=True, save_dvc_exp=False, exp_name="resumed"))

with Live("widths", dvcyaml=None, save_dvc_exp=False) as live:
    for number in range(4):
        live.log_metric("loss", 1.0, timestamp=number % 2 == 1)
        live.log_metric("timed", 1.0, timestamp=number % 2 == 0)
        live.next_step()

args = asynccb.TrainingArguments(output_dir="out")
behind = asynccb.DVCLiveCallback(dir="widths", resume=True, dvcyaml=None, save_dvc_exp=False)
with asynccb.CallbackDispatcher([behind], args=args, directory=sys.argv[1]) as run:
    run.step(logs={"loss": 0.5, "timed": 0.5})

alone = asynccb.DVCLiveCallback(Live("alone", exp_name="alone"))
with asynccb.CallbackDispatcher([alone], args=args, directory=sys.argv[1]) as run:
    run.step(logs={"loss": 1.0})

with Live("both", exp_name="both") as live:
    live.log_metric("before/rows", 640)
    live.log_params({"data": "v2"})
    tracker = asynccb.DVCLiveCallback(live)
    with asynccb.CallbackDispatcher([tracker], args=args, directory=sys.argv[1]) as run:
        for step in range(1, 4):
            run.step(logs={"loss": 1 / step})
    live.log_metric("after/score", 0.75, plot=False)

names = [standardize_metric_name(name, "dvclive.huggingface") for name in sys.argv[2:]]
print(json.dumps(names))
