"""
The ways to log that the benches compare; all are opened, used and closed in the same manner.

The training thread calls `log(step, values)`; `settle()` waits until all values have arrived.
Opening logs nothing. Peers' packages are imported only in the process that runs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

PATIENCE: Final = 120.0
"""Seconds within which all values must have arrived."""

Values: TypeAlias = dict[str, float]
Log: TypeAlias = Callable[[int, Values], object]


class Opened(NamedTuple):
    """A contender that is ready to log."""

    log: Log
    settle: Callable[[], object]


class Place(NamedTuple):
    """The place that a contender logs to."""

    folder: Path
    """The contender's own folder for files."""
    server: str
    """Address of the MLflow server."""

    def below(self, name: str) -> Place:
        """Make a new folder in this one, and return the place with the new folder."""
        folder = self.folder / name.replace(" ", "-").replace(",", "")
        folder.mkdir()
        return Place(folder, self.server)


def make_values(step: int) -> dict[str, float]:
    """Return five floats that change from step to step, as in a training."""
    loss = 2.0 + 1.0 / (1.0 + step)
    return {
        "loss": loss,
        "grad_norm": loss / 3.0,
        "learning_rate": 1e-3 / (1.0 + step),
        "epoch": step / 1000.0,
        "tokens_per_second": 1e5 + step,
    }


def _nothing_to_do() -> None:
    pass


@contextlib.contextmanager
def nothing(place: Place) -> Iterator[Opened]:
    """Log nothing, to measure the cost of the measurement."""
    yield Opened(lambda step, values: None, _nothing_to_do)


@contextlib.contextmanager
def two_trackers(place: Place) -> Iterator[Opened]:
    """asynccb to TensorBoard and MLflow."""
    with _asynccb(place, []) as opened:
        yield opened


@contextlib.contextmanager
def four_trackers(place: Place) -> Iterator[Opened]:
    """asynccb to TensorBoard, MLflow and two more lanes in the companion."""
    from _lanes import CountCallback, LatestCallback

    with _asynccb(place, [CountCallback, LatestCallback]) as opened:
        yield opened


@contextlib.contextmanager
def _asynccb(place: Place, more: list[Any]) -> Iterator[Opened]:
    import asynccb

    trackers = [
        asynccb.TensorBoardCallback(logging_dir=str(place.folder / "events")),
        asynccb.MLflowCallback(tracking_uri=place.server),
        *more,
    ]
    args = asynccb.TrainingArguments(output_dir=str(place.folder))
    log_event = asynccb.Event.LOG
    run = asynccb.CallbackDispatcher(trackers, args=args)
    state, emit = run.state, run.emit
    emit(asynccb.Event.TRAIN_BEGIN)

    def log(step: int, values: Values) -> None:
        state.global_step = step
        emit(log_event, logs=values)

    def settle() -> None:
        if not run.flush(timeout=PATIENCE):
            raise RuntimeError(
                f"asynccb did not deliver within {PATIENCE:.0f} s: {run.statistics()}"
            )

    yield Opened(log, settle)
    emit(asynccb.Event.TRAIN_END)
    with contextlib.redirect_stderr(io.StringIO()):  # its closing line would break the table
        run.close(timeout=PATIENCE)
    counted = run.statistics()
    if counted.dropped or counted.blocked or any(c.failed for c in counted.callbacks.values()):
        raise RuntimeError(f"asynccb did not deliver everything undisturbed: {counted}")


@contextlib.contextmanager
def _loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _wait_for(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()


@contextlib.contextmanager
def call_soon(place: Place) -> Iterator[Opened]:
    """One `call_soon_threadsafe` per event, to four queues that nobody reads."""
    queues: list[deque[Values]] = [deque() for _ in range(4)]

    def take(values: Values) -> None:
        for queue in queues:
            queue.append(values)

    with _loop_thread() as loop:
        call = loop.call_soon_threadsafe
        yield Opened(lambda step, values: call(take, values), lambda: _wait_for(loop))


@contextlib.contextmanager
def run_coroutine(place: Place) -> Iterator[Opened]:
    """One `run_coroutine_threadsafe` per event, to four such queues."""
    queues: list[deque[Values]] = [deque() for _ in range(4)]

    async def take(values: Values) -> None:
        for queue in queues:
            queue.append(values)

    with _loop_thread() as loop:
        run = asyncio.run_coroutine_threadsafe
        yield Opened(lambda step, values: run(take(values), loop), lambda: _wait_for(loop))


@contextlib.contextmanager
def summary_writer(place: Place) -> Iterator[Opened]:
    """PyTorch's `SummaryWriter` for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(place.folder / "events")) as writer:

        def log(step: int, values: Values) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield Opened(log, writer.flush)


def mlflow_sync(place: Place) -> AbstractContextManager[Opened]:
    """`mlflow.log_metrics`, which waits for the server."""
    return _mlflow(place, synchronous=True)


def mlflow_async(place: Place) -> AbstractContextManager[Opened]:
    """`mlflow.log_metrics(synchronous=False)`, MLflow's own asynchronous logging."""
    return _mlflow(place, synchronous=False)


@contextlib.contextmanager
def _mlflow(place: Place, *, synchronous: bool) -> Iterator[Opened]:
    import mlflow

    mlflow.set_tracking_uri(place.server)
    with _silence(), mlflow.start_run():

        def log(step: int, values: Values) -> None:
            mlflow.log_metrics(values, step=step, synchronous=synchronous)

        settle = _nothing_to_do if synchronous else mlflow.flush_async_logging
        yield Opened(log, settle)
        settle()


@contextlib.contextmanager
def transformers_handler(place: Place) -> Iterator[Opened]:
    """The dispatcher of transformers with its TensorBoard and MLflow callbacks."""
    os.environ["MLFLOW_TRACKING_URI"] = place.server
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.folder / "events")
    import mlflow
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations.integration_utils import MLflowCallback, TensorBoardCallback
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

    mlflow.set_tracking_uri(place.server)
    args = TrainingArguments(output_dir=str(place.folder), report_to=[])
    state, control = TrainerState(), TrainerControl()
    callbacks = [DefaultFlowCallback, TensorBoardCallback, MLflowCallback]
    dispatch = CallbackHandler(callbacks, None, None, None, None)  # type: ignore[no-untyped-call]
    with _silence():
        dispatch.on_train_begin(args, state, control)

        def log(step: int, values: Values) -> None:
            state.global_step = step
            dispatch.on_log(args, state, control, values)

        yield Opened(log, mlflow.flush_async_logging)
        mlflow.flush_async_logging()
        dispatch.on_train_end(args, state, control)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the peers' messages about runs and addresses out of the table."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


OPEN: Final[dict[str, Callable[[Place], AbstractContextManager[Opened]]]] = {
    "nothing": nothing,
    "asynccb, 4 lanes": four_trackers,
    "asynccb": two_trackers,
    "call_soon_threadsafe": call_soon,
    "run_coroutine_threadsafe": run_coroutine,
    "transformers": transformers_handler,
    "SummaryWriter": summary_writer,
    "MLflow synchronous": mlflow_sync,
    "MLflow asynchronous": mlflow_async,
}
"""The contenders, by their names in the tables."""
