"""Drive the TensorBoard tracker as its lane does, and read its files as TensorBoard does."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from asynccb._ground.types import RunStatus
from asynccb._state.control import TrainerControl
from asynccb._state.run_description import ModelDescription, PlainArguments, RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.trackers.tensorboard import TensorBoardCallback

START = 1_700_000_000_000_000_000
"""Unix time of the run, in nanoseconds."""

Step = tuple[str, int, dict[str, Any]]
"""One event: the hook's name, the global step, the logs or metrics."""


def describe(directory: Path, **args: Any) -> RunDescription:
    return RunDescription(
        key="0123456789abcdef" * 2,
        started=START,
        args=PlainArguments({"output_dir": str(directory), "seed": 42, "hub_token": "s", **args}),
        model=ModelDescription("GPT", {"layers": 2, "tied": True}, 10, 10),
        host="node7",
    )


def training(first: int, last: int) -> list[Step]:
    """Return the events of a training that logs each step after `first`."""
    logs: list[Step] = [
        ("on_log", step, {"loss": 1 / step, "epoch": step / 8})
        for step in range(first + 1, last + 1)
    ]
    return [("on_train_begin", first, {}), *logs]


class Lane:
    """Call a tracker's hooks; the n-th event of a run is always emitted at the same time."""

    def __init__(self, tracker: TensorBoardCallback, run: RunDescription, events: int = 0) -> None:
        self.tracker = tracker
        self.events = events
        tracker.describe(run)

    async def add(self, events: Sequence[Step], **state: Any) -> None:
        for hook, step, values in events:
            self.events += 1
            self.tracker.time = START + self.events * 100_000_000
            await getattr(self.tracker, hook)(
                self.tracker.run.args,
                TrainerState(global_step=step, **state),
                TrainerControl(),
                **{"metrics" if hook == "on_predict" else "logs": values},
            )

    async def deliver(self, events: Sequence[Step], **state: Any) -> None:
        await self.add(events, **state)
        await self.tracker.flush()

    async def finish(self, status: RunStatus) -> None:
        self.tracker.time = START + (self.events + 1) * 100_000_000
        await self.tracker.finish(status)


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*tfevents*"))


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in files(directory)}


def events(file: Path) -> list[Any]:
    """Return the records of a file, as TensorBoard's own loader reads them."""
    return [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of all scalars, by tag, as `EventAccumulator` reads them."""
    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(point.step, point.value) for point in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def single(value: float) -> float:
    """Return the 32-bit float that is nearest to a value."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def logged(directory: Path) -> list[tuple[int, str, Any]]:
    """Return step, name and value of all that was logged, texts too; NaN as None."""
    if not files(directory):
        return []
    scalars = [
        (step, tag, None if math.isnan(value) else value)
        for tag, values in points(directory).items()
        for step, value in values
    ]
    texts = [
        (event.step, value.tag.removesuffix("/text_summary"), value.tensor.string_val[0].decode())
        for file in files(directory)
        for event in events(file)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
        and "/" in value.tag.removesuffix("/text_summary")
    ]
    return sorted([*scalars, *texts], key=lambda value: value[0])
