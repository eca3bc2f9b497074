"""
What a ClearML task is told while it runs: scalars by title and series, and lines of its console.

Facts are those of `clearml` 2.1 and of server 2.0. Promises: the same records make the same events.
The server keeps one value for each title, series and iteration, and the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from asynccb._ground.plain import clean
from asynccb.trackers.names import SINGLE_VALUES, scalars

_PREFIXES: Final = (("eval_", "eval"), ("test_", "test"))
_SINGLE: Final = SINGLE_VALUES | {"epoch"}
_SUMMARY: Final = "Summary"
_NO_ITERATION: Final = -(2**31)
"""What stands for the iteration of a single value."""
_LARGEST: Final = 3.4028234663852886e38
"""The server's index holds single precision, and refuses what is beyond, NaN too."""
_LONGEST_NAME: Final = 32_000
"""Bytes that the index takes of a name."""
_BULK: Final = 160
"""Bytes of an event beside its names or text."""
_ENCODER: Final = msgspec.json.Encoder()


class Scalar(msgspec.Struct, frozen=True):
    """Hold one value of a series."""

    title: str
    series: str
    iteration: int | None
    """None for a value of the whole run."""
    value: float
    time: int
    """Unix milliseconds."""

    def line(self, task: str, worker: str, suffix: str) -> bytes:
        """Return it as the server takes it; `suffix` tells trainings of one task apart."""
        single = self.iteration is None
        return _ENCODER.encode(
            {
                "timestamp": self.time,
                "type": "training_stats_scalar",
                "task": task,
                "iter": _NO_ITERATION if single else self.iteration,
                "metric": self.title if single else self.title + suffix,
                "variant": self.series + suffix if single else self.series,
                "value": self.value,
            }
        )

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return _BULK + len(self.title) + len(self.series)


class Text(msgspec.Struct, frozen=True):
    """Hold lines of the console."""

    level: str
    text: str
    time: int
    """Unix milliseconds."""

    def line(self, task: str, worker: str, suffix: str) -> bytes:
        """Return it as the server takes it."""
        return _ENCODER.encode(
            {
                "timestamp": self.time,
                "type": "log",
                "task": task,
                "level": self.level,
                "worker": worker,
                "msg": self.text,
            }
        )

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return _BULK + 2 * len(self.text)


TaskEvent: TypeAlias = Scalar | Text


class Made(msgspec.Struct):
    """Hold what became of a log."""

    events: list[TaskEvent] = msgspec.field(default_factory=list)
    singles: dict[str, Scalar] = msgspec.field(default_factory=dict)
    """Values of the whole run, of which the last one counts."""
    rejected: dict[str, str] = msgspec.field(default_factory=dict)
    """Names of what ClearML has no place for, with the reasons."""


def events_of(logs: Mapping[str, Any], step: int, time: int) -> Made:
    """
    Return what a log becomes; `time` is in Unix nanoseconds.

    NaN, infinity and what single precision cannot hold are lines of the console, for no chart takes
    them.
    """
    numbers, others = scalars(logs)
    made = Made(rejected=dict.fromkeys(others, "it is no number"))
    moment = time // 1_000_000
    for name, value in numbers.items():
        shown = name if name.isascii() else clean(name)
        if len(shown) > _LONGEST_NAME // 4 and len(shown.encode()) > _LONGEST_NAME:
            made.rejected[name] = f"its name has more than {_LONGEST_NAME} bytes"
            continue
        if name in _SINGLE:
            scalar = Scalar(_SUMMARY, shown, None, value, moment)
        else:
            scalar = Scalar(*_place_of(shown), step, value, moment)
        if not abs(value) <= _LARGEST:
            text = f"{scalar.title}/{scalar.series} = {value!r} at iteration {step}"
            made.events.append(Text("warning", text, moment))
        elif scalar.iteration is None:
            made.singles[name] = scalar
        else:
            made.events.append(scalar)
    return made


def _place_of(name: str) -> tuple[str, str]:
    """Return title and series: `eval_loss` is `loss` of `eval`."""
    for prefix, title in _PREFIXES:
        if name.startswith(prefix):
            return title, name.removeprefix(prefix)
    return "train", name


def texts_of(lines: Iterable[tuple[bool, int, str]]) -> Iterator[Text]:
    """Return lines of the console, each with whether it is of an error, and its time in ns."""
    for is_error, time, text in lines:
        yield Text("error" if is_error else "info", text, time // 1_000_000)


_GIB_IN_MIB: Final = 1024.0
_GIB: Final = float(1 << 30)
_MACHINE: Final = {
    "cpu": ("cpu_usage", 1.0),
    "proc.memory.rssMB": ("memory_used_gb", _GIB_IN_MIB),
    "proc.memory.availableMB": ("memory_free_gb", _GIB_IN_MIB),
}
"""Names of the samples, with ClearML's and by what they are divided. CPU and memory used are those
of the training process."""
_GPU: Final = {
    "gpu": ("utilization", 1.0),
    "temp": ("temperature", 1.0),
    "memoryAllocated": ("mem_usage", 1.0),
    "memoryAllocatedBytes": ("mem_used_gb", _GIB),
    "powerWatts": ("power_draw", 1.0),
}


def machine_scalars(sample: Mapping[str, float], began: int, now: int) -> Iterator[Scalar]:
    """Return a sample's scalars; both times are in Unix nanoseconds."""
    seconds, moment = max(0, now - began) // 10**9, now // 10**6
    for name, value in sample.items():
        _, _, rest = name.partition("gpu.")
        index, _, reading = rest.partition(".")
        if name in _MACHINE:
            shown, unit = _MACHINE[name]
            yield Scalar(":monitor:machine", shown, seconds, value / unit, moment)
        elif name.startswith("gpu.") and reading in _GPU:
            shown, unit = _GPU[reading]
            yield Scalar(":monitor:gpu", f"gpu_{index}_{shown}", seconds, value / unit, moment)
