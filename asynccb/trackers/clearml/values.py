"""
Convert logs, console lines and machine samples to the events of a ClearML task.

A scalar belongs to a title and a series. Facts are from `clearml` 2.1 and server 2.0. Promises: the
same records make the same events. The server keeps one value for each title, series and iteration,
the last one sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from asynccb._ground.plain import clean
from asynccb.trackers.names import MARK, SINGLE_VALUES, Names, marked

_PREFIXES: Final = (("eval_", "eval"), ("test_", "test"))
_SINGLE: Final = SINGLE_VALUES | {"epoch"}
_SUMMARY: Final = "Summary"
_MONITOR: Final = ":monitor:"
_NO_ITERATION: Final = -(2**31)
"""Iteration of a value that belongs to the whole run."""
_LARGEST: Final = 3.4028234663852886e38
"""Largest value: the server's index stores single precision, and refuses larger values and NaN."""
_LONGEST_NAME: Final = 32_000
"""Maximum number of bytes of a name in the index."""
_BULK: Final = 160
"""Bytes of an event without its names or text."""
_ENCODER: Final = msgspec.json.Encoder()


class Scalar(msgspec.Struct, frozen=True):
    """One value of a series."""

    title: str
    series: str
    iteration: int | None
    """None for a value of the whole run."""
    value: float
    time: int
    """Unix milliseconds."""

    def line(self, task: str, worker: str, suffix: str) -> bytes:
        """Return the server's JSON line; `suffix` distinguishes the trainings of one task."""
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
        """Approximate number of bytes of the line."""
        return _BULK + len(self.title) + len(self.series)


class Text(msgspec.Struct, frozen=True):
    """One or more lines of the console."""

    level: str
    text: str
    time: int
    """Unix milliseconds."""

    def line(self, task: str, worker: str, suffix: str) -> bytes:
        """Return the server's JSON line."""
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
        """Approximate number of bytes of the line."""
        return _BULK + 2 * len(self.text)


TaskEvent: TypeAlias = Scalar | Text


class Made(msgspec.Struct):
    """The events of a log."""

    events: list[TaskEvent] = msgspec.field(default_factory=list)
    singles: dict[str, Scalar] = msgspec.field(default_factory=dict)
    """Values of the whole run; a later value replaces an earlier one."""


def metric_name(name: str) -> str:
    """
    Return a metric's name in the index; one that had to be changed ends in a checksum.

    The titles of our own, for single values and the machine, are changed as well: with names as
    given, a metric's name is its title.
    """
    if name == _SUMMARY or name.startswith(_MONITOR):
        return marked(name.lstrip(":"), name)
    shown = name if name.isascii() else clean(name)
    if len(shown) > _LONGEST_NAME // 4 and len(shown.encode()) > _LONGEST_NAME:
        shown = shown.encode()[: _LONGEST_NAME - MARK].decode("utf-8", "ignore")
    return name if shown == name else marked(shown, name)


def events_of(numbers: Mapping[str, float], step: int, time: int, names: Names) -> Made:
    """
    Convert the numbers of a log to events; `time` is in Unix nanoseconds.

    Their names are those of `metric_name`.

    NaN, infinity and values beyond single precision become lines of the console, because a chart
    cannot show them.
    """
    made = Made()
    moment = time // 1_000_000
    for name, value in numbers.items():
        if name in _SINGLE and names == "grouped":
            scalar = Scalar(_SUMMARY, name, None, value, moment)
        else:
            scalar = Scalar(*_place_of(name, names), step, value, moment)
        if not abs(value) <= _LARGEST:
            text = f"{scalar.title}/{scalar.series} = {value!r} at iteration {step}"
            made.events.append(Text("warning", text, moment))
        elif scalar.iteration is None:
            made.singles[name] = scalar
        else:
            made.events.append(scalar)
    return made


def _place_of(name: str, names: Names) -> tuple[str, str]:
    """
    Return title and series: `eval_loss` has the title `eval` and the series `loss`.

    With names as given, a metric is the only series of the title that has its name.
    """
    if names == "given":
        return name, name
    for prefix, title in _PREFIXES:
        if name.startswith(prefix):
            return title, name.removeprefix(prefix)
    return "train", name


def texts_of(lines: Iterable[tuple[bool, int, str]]) -> Iterator[Text]:
    """Convert console lines; each has whether it is an error, its time in ns, and its text."""
    for is_error, time, text in lines:
        yield Text("error" if is_error else "info", text, time // 1_000_000)


_GIB_IN_MIB: Final = 1024.0
_GIB: Final = float(1 << 30)
_MACHINE: Final = {
    "cpu": ("cpu_usage", 1.0),
    "proc.memory.rssMB": ("memory_used_gb", _GIB_IN_MIB),
    "proc.memory.availableMB": ("memory_free_gb", _GIB_IN_MIB),
}
"""ClearML's name and the divisor for each name of a sample. CPU and used memory are the training
process's."""
_GPU: Final = {
    "gpu": ("utilization", 1.0),
    "temp": ("temperature", 1.0),
    "memoryAllocated": ("mem_usage", 1.0),
    "memoryAllocatedBytes": ("mem_used_gb", _GIB),
    "powerWatts": ("power_draw", 1.0),
}


def machine_scalars(sample: Mapping[str, float], began: int, now: int) -> Iterator[Scalar]:
    """Convert a sample to scalars; both times are in Unix nanoseconds."""
    seconds, moment = max(0, now - began) // 10**9, now // 10**6
    for name, value in sample.items():
        _, _, rest = name.partition("gpu.")
        index, _, reading = rest.partition(".")
        if name in _MACHINE:
            shown, unit = _MACHINE[name]
            yield Scalar(f"{_MONITOR}machine", shown, seconds, value / unit, moment)
        elif name.startswith("gpu.") and reading in _GPU:
            shown, unit = _GPU[reading]
            yield Scalar(f"{_MONITOR}gpu", f"gpu_{index}_{shown}", seconds, value / unit, moment)
