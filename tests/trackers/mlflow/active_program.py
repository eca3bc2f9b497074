"""
Train in a process that uses MLflow itself, with our callback or transformers': WHOSE MODE URI.

Prints the active run's id. MODE is `active`, `nested`, `alone` (nested, and nothing is active),
`killed` (within the active run, by itself), `restarted` (so is the companion, and the training goes
on) or `elsewhere` (the active run is at another address).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import mlflow

import asynccb
from asynccb import TrainingArguments
from tests.faults.kills import children

STEPS = 3


def ours(args: Any) -> None:
    """Train with our callback."""
    uri = sys.argv[3] if sys.argv[2] == "elsewhere" else None
    with asynccb.CallbackDispatcher(
        [asynccb.MLflowCallback(tracking_uri=uri)], args=args, max_steps=STEPS
    ) as run:
        for step in range(1, STEPS + 1):
            run.step(logs={"loss": 1 / step})
            if step == 1 and sys.argv[2] == "restarted":
                run.add_callback(asynccb.TensorBoardCallback())  # which describes the run again
                assert run.flush(60)
                for pid in children(os.getpid()):
                    os.kill(pid, signal.SIGKILL)
        if sys.argv[2] == "killed":
            assert run.flush(60)
            os.kill(os.getpid(), signal.SIGKILL)


def theirs(args: Any) -> Any:
    """
    Call transformers' callback as its Trainer does, and return it.

    When it is deleted, it ends whatever run is active: after a nested one, the user's own.
    """
    from transformers import TrainerControl, TrainerState
    from transformers import TrainingArguments as Arguments
    from transformers.integrations import MLflowCallback

    callback, control = MLflowCallback(), TrainerControl()
    given = Arguments(output_dir=args.output_dir, use_cpu=True, run_name=args.run_name)
    state = TrainerState(is_world_process_zero=True)
    callback.on_train_begin(given, state, control)
    for state.global_step in range(1, STEPS + 1):
        callback.on_log(given, state, control, logs={"loss": 1 / state.global_step})
    mlflow.flush_async_logging()
    callback.on_train_end(given, state, control)
    return callback


def main(whose: str, mode: str, uri: str) -> None:
    """Train within the active run, or without one."""
    mlflow.set_tracking_uri("sqlite:///other.db" if mode == "elsewhere" else uri)
    if mode in ("nested", "alone"):
        os.environ["MLFLOW_NESTED_RUN"] = "True"
    train = {"ours": ours, "theirs": theirs}[whose]
    args = TrainingArguments(output_dir="out", run_name="the training")
    if mode == "alone":
        train(args)
        return
    mlflow.set_experiment(os.environ["EXPERIMENT"])
    with mlflow.start_run(run_name="mine") as run:
        print(run.info.run_id, flush=True)
        mlflow.log_metric("before", 1.0)
        used = train(args)
        assert mlflow.MlflowClient().get_run(run.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("after", 1.0)
        del used


if __name__ == "__main__":
    main(*sys.argv[1:])
