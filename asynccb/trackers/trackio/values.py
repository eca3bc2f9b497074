"""
The values of a run for Trackio: rows of metrics, of the machine, and alerts.

Source: Trackio 0.43. A row is stored once under its id, whichever way it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, TypeAlias

import msgspec

from asynccb._ground.plain import clean
from asynccb.trackers.names import marked, scalars
from asynccb.trackers.shared.nvml import GPU

_GIB: Final = 1 << 30
_RESERVED: Final = frozenset({"project", "run", "timestamp", "step", "time", "metrics"})

Kind: TypeAlias = Literal["metric", "system_metric", "alert"]


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """The values logged at one step."""

    kind: ClassVar[Kind] = "metric"

    project: str
    run: str
    run_id: str
    metrics: dict[str, Any]
    step: int
    config: dict[str, Any] | None
    """Only in the first row: a later one would replace the whole configuration."""
    log_id: str
    timestamp: str
    """Taken from a file only; a server dates rows by their arrival."""


class SystemRow(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of the machine at one moment."""

    kind: ClassVar[Kind] = "system_metric"

    project: str
    run: str
    run_id: str
    metrics: dict[str, float]
    timestamp: str
    log_id: str


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An alert."""

    kind: ClassVar[Kind] = "alert"

    project: str
    run: str
    run_id: str
    title: str
    text: str
    level: Literal["info", "warn", "error"]
    step: int
    timestamp: str
    alert_id: str


Row: TypeAlias = MetricRow | SystemRow | AlertRow


def moment(nanoseconds: int) -> str:
    """Return a Unix time as Trackio writes it, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000).isoformat()


def column(name: str) -> str:
    """
    Return the name of a metric's column.

    A server takes any text, but the columns of its own tables would hide a metric of their name, as
    `step`. The vendor's client puts `__` before such a name and before any other that begins so,
    and so do we. A name with a password, or of half a character, is changed and ends in a checksum.
    """
    plain = str(clean(name))
    if plain != name or not name:
        return marked(plain, name)
    return f"__{name}" if name in _RESERVED or name.startswith("__") else name


def metrics_of(named: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """
    Return values by their columns, and the columns of values that Trackio shows nowhere.

    Numbers and texts are kept. NaN and infinity are the strings that Trackio's own client sends.
    """
    numbers, others = scalars(named)
    kept: dict[str, Any] = {**numbers}
    kept.update((name, named[name]) for name in others if isinstance(named[name], str))
    # One by one: as a whole, a metric named `loss_per_token` would pass for a credential.
    plain = {name: clean(value) for name, value in kept.items()}
    return plain, [name for name in others if name not in kept]


def gpu_metrics(gpus: Iterable[GPU]) -> dict[str, float]:
    """Return the readings under the names of Trackio's own monitor; memory in GiB, power in W."""
    found: dict[str, float] = {}
    sums: dict[str, list[float]] = {"allocated_memory": [], "power": []}
    for gpu in gpus:
        told = {
            "utilization": gpu.utilization,
            "allocated_memory": None if gpu.used is None else gpu.used / _GIB,
            "total_memory": None if gpu.total is None else gpu.total / _GIB,
            "power": gpu.power,
            "power_limit": gpu.power_limit,
            "temp": gpu.temperature,
        }
        for name, value in told.items():
            if value is not None:
                found[f"gpu/{gpu.index}/{name}"] = value
                sums.get(name, []).append(value)
    return found | {f"gpu/total_{name}": sum(values) for name, values in sums.items() if values}
