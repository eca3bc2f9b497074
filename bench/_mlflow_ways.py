"""
The ways to send points to an MLflow server that `delivery.py` compares.

Each makes one run, in the experiment that `MLFLOW_EXPERIMENT_NAME` names. Steps are logged in
order, from 1 on.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from _contenders import PATIENCE, Opened, Place, Values, mlflow_async, mlflow_sync

BATCH: Final = 1000
"""The most points that MLflow accepts in one request."""


@contextlib.contextmanager
def ours(place: Place) -> Iterator[Opened]:
    """asynccb with its MLflow tracker alone."""
    import asynccb

    tracker = asynccb.MLflowCallback(tracking_uri=place.server)
    args = asynccb.TrainingArguments(output_dir=str(place.folder))
    with (
        contextlib.redirect_stderr(io.StringIO()),  # its closing line would break the table
        asynccb.CallbackDispatcher([tracker], args=args) as run,
    ):

        def settle() -> None:
            if not run.flush(timeout=PATIENCE):
                raise RuntimeError(f"not delivered within {PATIENCE:.0f} s: {run.statistics()}")

        yield Opened(lambda step, values: run.step(logs=values), settle)


@contextlib.contextmanager
def batches(place: Place) -> Iterator[Opened]:
    """`MlflowClient.log_batch` with 1,000 points, collected by hand."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(place.server)
    experiment = client.create_experiment(place.folder.name)
    run_id = client.create_run(experiment).info.run_id
    gathered: list[Any] = []

    def log(step: int, values: Values) -> None:
        now = time.time_ns() // 1_000_000
        gathered.extend(Metric(name, value, now, step) for name, value in values.items())
        if len(gathered) >= BATCH:
            settle()

    def settle() -> None:
        client.log_batch(run_id, metrics=gathered)
        gathered.clear()

    yield Opened(log, settle)
    with contextlib.redirect_stdout(io.StringIO()):  # its output would break the table too
        client.set_terminated(run_id)


WAYS: Final[dict[str, Callable[[Place], AbstractContextManager[Opened]]]] = {
    "asynccb": ours,
    "MLflow synchronous": mlflow_sync,
    "MLflow asynchronous": mlflow_async,
    "log_batch of 1,000": batches,
}
"""The contenders, by their names in the table."""
