"""
The values of a run for Comet: metrics, parameters, and single facts.

Source: `comet_ml` 3.58. Promises: the same records make the same values. A name or value that
is cut stays different from all others.
"""

from __future__ import annotations

import math
import platform
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from asynccb._ground.plain import clean, flatten
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.names import marked, scalars
from asynccb.trackers.shared.system_metrics import is_live

NAME_LENGTH: Final = 100
"""Characters of a name; the vendor's client cuts off the rest."""
ERRORS: Final[dict[RunStatus, str | None]] = {
    "finished": None,
    "failed": "the training raised an exception",
    "killed": "the training was ended by a signal",
    "crashed": "the training died without a word",
}
"""The error text of a run that ended so; None if it went well."""
_OTHER_LENGTH: Final = 1000
_SEPARATOR: Final = "|"
"""Between the names of nested parameters."""


class Metric(msgspec.Struct, frozen=True, rename="camel"):
    """One value of a metric; times are Unix milliseconds."""

    metric_name: str
    metric_value: float | str
    step: int
    epoch: float | None
    part: str | None = msgspec.field(name="context")
    timestamp: int


class Latest(msgspec.Struct, frozen=True):
    """The last value of a metric that the server has."""

    name: str
    value: str | float | None = msgspec.field(name="valueCurrent", default=None)
    step: float | None = msgspec.field(name="stepCurrent", default=None)
    timestamp: int | None = msgspec.field(name="timestampCurrent", default=None)

    def is_of(self, metric: Metric) -> bool:
        """Tell whether it is this value."""
        if self.value is None or (self.step, self.timestamp) != (metric.step, metric.timestamp):
            return False
        if self.value == metric.metric_value:  # NaN is a text, and the same as itself
            return True
        try:  # the server writes numbers as it likes
            return math.isclose(float(self.value), float(metric.metric_value), rel_tol=1e-9)
        except ValueError:
            return False


def stored_before(latest: Iterable[Latest]) -> Callable[[Sequence[Metric]], set[int]]:
    """Return what finds the values, by their places, that a server has which has these last."""
    known = {one.name: one for one in latest}

    def find(metrics: Sequence[Metric]) -> set[int]:
        last = {
            metric.metric_name: place
            for place, metric in enumerate(metrics)
            if metric.metric_name in known and known[metric.metric_name].is_of(metric)
        }
        return {n for n, metric in enumerate(metrics) if n <= last.get(metric.metric_name, -1)}

    return find


class Parameter(msgspec.Struct, frozen=True, rename="camel"):
    """One parameter."""

    parameter_name: str
    parameter_value: Any
    step: int | None
    source: str
    part: str | None = msgspec.field(name="context")
    timestamp: int


class Note(msgspec.Struct, frozen=True):
    """One fact about an experiment, and the name of its endpoint."""

    endpoint: Literal["log-other", "graph", "file-path", "system-details"]
    fields: dict[str, Any]


def milliseconds(time: int) -> int:
    """Return a time in Unix nanoseconds as Comet has it."""
    return time // 10**6


def other(key: str, value: Any) -> Note:
    """Return a fact of one's own."""
    text = value[:_OTHER_LENGTH] if isinstance(value, str) else value
    return Note("log-other", {"key": short(key), "value": text})


def metrics_of(
    named: Mapping[str, Any], step: int, epoch: float | None, time: int
) -> tuple[list[Metric], list[str]]:
    """
    Return the metrics of a step, and the names of all other values.

    Numbers and texts are kept, as in `comet_ml`.
    """
    numbers, others = scalars(named)
    kept: dict[str, Any] = {**numbers, **{n: named[n] for n in others if isinstance(named[n], str)}}
    moment = milliseconds(time)
    found = [
        # A value is cleaned by itself: beside its name, `loss_per_token` would pass for a secret.
        Metric(name, clean(value), step, epoch, None, moment)
        for name, value in kept.items()
    ]
    return found, [name for name in others if name not in kept]


def parameters_of(run: RunDescription, time: int) -> list[Parameter]:
    """
    Return arguments and configurations as parameters: `args|learning_rate`, `config|hidden_size`.

    As in transformers; `peft_config|…` with adapters.
    """
    groups: dict[str, Any] = {"args": clean(run.args.to_dict())}
    if run.model is not None:
        groups["config"] = clean(run.model.config or {})
        groups["peft_config"] = clean(run.model.peft_config or {})
    moment = milliseconds(time)
    return [
        Parameter(short(name), _parameter(value), None, "manual", None, moment)
        for name, value in flatten(groups, _SEPARATOR).items()
        if value != {}
    ]


def _parameter(value: Any) -> Any:
    """Return a value as the server takes it: a scalar, a list of scalars, or JSON."""
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def notes_of(run: RunDescription, name: str | None) -> Iterator[Note]:
    """Return the facts that are sent once: the experiment's name, program and machine."""
    if name:
        yield other("Name", name)
    yield other("Created from", "asynccb")
    yield other("hasNestedParams", True)
    if run.script:
        yield Note("file-path", {"filePath": run.script})
    details: dict[str, Any] = {
        "command": [run.script] if run.script else [],
        "hostname": run.host,
        "pid": run.pid,
        "user": run.user,
    }
    if is_live(run):  # or it is another machine that delivers
        system = platform.uname()
        details |= {
            "executable": sys.executable,
            "machine": system.machine,
            "os": platform.platform(),
            "osRelease": system.release,
            "osType": system.system,
            "pythonVersion": platform.python_version(),
            "pythonVersionVerbose": sys.version,
        }
    yield Note("system-details", details)


def metric_name(name: str) -> str:
    """Return a metric's name at Comet; one that had to be changed ends in a checksum."""
    plain = str(clean(name)).replace("\0", "\N{REPLACEMENT CHARACTER}")
    if plain == name and 0 < len(name) <= NAME_LENGTH:
        return name
    return marked(plain, name, NAME_LENGTH)


def short(name: str) -> str:
    """Return a name that is not too long; a checksum tells those apart that begin the same."""
    plain = name.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(plain) <= NAME_LENGTH:
        return plain
    return f"{plain[: NAME_LENGTH - 9]}_{zlib.crc32(plain.encode()):08x}"
