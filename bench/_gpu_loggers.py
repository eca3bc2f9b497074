"""
The ways to log scalars of a GPU that the benches compare.

`log(step, scalars)` accepts 0-d tensors on the device. asynccb receives them as they are. Every
peer would wait for each tensor, so `fetched` reads the tensors first, all at once or one by one.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from _contenders import PATIENCE, Opened, Place, Values, mlflow_async, summary_writer
from _gpu_work import Scalars

Log: TypeAlias = Callable[[int, Scalars], object]

FETCHES: Final = ("stack", "item")
NEEDS: Final = {
    "none": (),
    "asynccb": (),
    "SummaryWriter": (),
    "transformers": ("transformers",),
    "W&B offline": ("wandb",),
    "MLflow asynchronous": ("mlflow",),
}
"""Packages that each logger needs in addition to asynccb's own dependencies."""
LOGGERS: Final = tuple(NEEDS)


class Servers(NamedTuple):
    """The servers that the loggers send to, and the way that peers read the scalars."""

    folder: Path
    mlflow: str | None
    """Address of an MLflow server; None if MLflow is not installed."""
    sink: str
    fetch: str


class Ready(NamedTuple):
    """A logger that is ready to log."""

    log: Log | None
    settle: Callable[[], object]
    """Waits until all values have arrived, as far as the logger knows."""


def missing_for(logger: str) -> str | None:
    """Return a message that lists the packages a logger lacks, or None."""
    lacking = [name for name in NEEDS[logger] if importlib.util.find_spec(name) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else None


@contextlib.contextmanager
def open_logger(name: str, servers: Servers, folder: Path) -> Iterator[Ready]:
    """Open a logger that writes its files below `folder`, and close it at the end."""
    folder.mkdir(parents=True)
    if name == "none":
        yield Ready(None, lambda: None)
    elif name == "asynccb":
        with _asynccb(servers, folder) as ready:
            yield ready
    else:
        with _PEERS[name](Place(folder, servers.mlflow or "")) as peer:
            yield Ready(fetched(peer.log, servers.fetch), peer.settle)


def fetched(log: Callable[[int, Values], object], fetch: str) -> Log:
    """
    Return a log function that reads scalars from the device for a logger that needs numbers.

    `"stack"` waits for the device once per log, the possible minimum. `"item"` waits once per
    scalar, as most training loops do.
    """

    def log_stacked(step: int, scalars: Scalars) -> None:
        numbers = torch.stack(tuple(scalars.values())).tolist()
        log(step, dict(zip(scalars, numbers, strict=True)))

    def log_items(step: int, scalars: Scalars) -> None:
        log(step, {name: scalar.item() for name, scalar in scalars.items()})

    return {"stack": log_stacked, "item": log_items}[fetch]


@contextlib.contextmanager
def _asynccb(servers: Servers, folder: Path) -> Iterator[Ready]:
    """asynccb to four trackers: TensorBoard, MLflow, and two REST sinks."""
    import _gpu_sinks as sinks

    import asynccb
    from asynccb.distributed import process_group as distributed

    second: Any = (
        asynccb.MLflowCallback(tracking_uri=servers.mlflow)
        if servers.mlflow
        else sinks.SecondTensorBoardCallback(logging_dir=str(folder / "more-events"))
    )
    addresses = [f"{servers.sink}/{folder.name}/{number}" for number in (1, 2)]
    trackers = [
        asynccb.TensorBoardCallback(logging_dir=str(folder / "events")),
        second,
        sinks.SinkCallback(addresses[0]),
        sinks.SecondSinkCallback(addresses[1]),
    ]
    logged = 0
    run = asynccb.CallbackDispatcher(trackers, directory=folder / "journal")
    run.emit(asynccb.Event.TRAIN_BEGIN)

    def log(step: int, scalars: Scalars) -> None:
        nonlocal logged
        logged += len(scalars)
        run.step(logs=scalars)

    def settle() -> None:
        if not run.flush(timeout=PATIENCE):
            raise RuntimeError(f"not delivered within {PATIENCE:.0f} s: {run.statistics()}")

    yield Ready(log, settle)
    run.emit(asynccb.Event.TRAIN_END)
    with contextlib.redirect_stderr(io.StringIO()):  # its closing line would break the table
        run.close(timeout=PATIENCE)
    counted = run.statistics()
    arrived = [sinks.count_values(address) for address in addresses]
    if counted.dropped or any(c.failed for c in counted.callbacks.values()):
        raise RuntimeError(f"asynccb did not deliver everything: {counted}")
    if distributed.rank() > 0:
        logged = 0  # only the first rank's trackers send
    if arrived != [logged, logged]:
        raise RuntimeError(f"of {logged} logged values, {arrived} arrived at the two sinks")


@contextlib.contextmanager
def _wandb(place: Place) -> Iterator[Opened]:
    """W&B, offline: its service process writes a file."""
    wandb: Any = importlib.import_module("wandb")

    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(mode="offline", dir=str(place.folder), settings=settings)
    yield Opened(lambda step, values: run.log(values, step=step), lambda: None)
    run.finish()


@contextlib.contextmanager
def _transformers(place: Place) -> Iterator[Opened]:
    """The dispatcher of transformers with its TensorBoard callback, which flushes each log."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.folder / "events")
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations.integration_utils import TensorBoardCallback
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

    args = TrainingArguments(output_dir=str(place.folder), report_to=[])
    state, control = TrainerState(), TrainerControl()
    callbacks = [DefaultFlowCallback, TensorBoardCallback]
    dispatch = CallbackHandler(callbacks, None, None, None, None)  # type: ignore[no-untyped-call]
    dispatch.on_train_begin(args, state, control)

    def log(step: int, values: Values) -> None:
        state.global_step = step
        dispatch.on_step_end(args, state, control)
        dispatch.on_log(args, state, control, values)

    yield Opened(log, lambda: None)
    dispatch.on_train_end(args, state, control)


_PEERS: Final[dict[str, Callable[[Place], AbstractContextManager[Opened]]]] = {
    "SummaryWriter": summary_writer,
    "transformers": _transformers,
    "W&B offline": _wandb,
    "MLflow asynchronous": mlflow_async,
}
