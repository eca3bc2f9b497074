"""Log with the vendor's own package, in the working directory: whole, resumed, and beside us."""

from __future__ import annotations

import sys

from dvclive import Live

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

args = asynccb.TrainingArguments(output_dir="out")
with Live("both", exp_name="both") as live:
    live.log_metric("before/rows", 640)
    live.log_params({"data": "v2"})
    tracker = asynccb.DVCLiveCallback(live)
    with asynccb.CallbackDispatcher([tracker], args=args, directory=sys.argv[1]) as run:
        for step in range(1, 4):
            run.step(logs={"loss": 1 / step})
    live.log_metric("after/score", 0.75, plot=False)
