"""
The points that a store in a folder has, which appends whatever it is sent.

Promises: a point that the folder has is not sent again, whether this process has sent it or an
earlier one that was killed; the history of a metric is read once a process, and again after a
failure. Memory does not grow with the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from asynccb.trackers.mlflow.api import Entity, Point

_RECENT: Final = 10_000
"""Points that are remembered: the last ten requests, one of which may be repeated as a test of
whether the store accepts any."""

_Key: TypeAlias = tuple[int, int, str]


class AppendedPoints:
    """The points of one run; `history` returns a run's points of a metric as MLflow has them."""

    def __init__(self, history: Callable[[str, str], Sequence[Any]]) -> None:
        self._history = history
        self._earlier: dict[str, set[_Key]] = {}
        self._recent: dict[tuple[str, _Key], None] = {}

    @contextlib.contextmanager
    def only_new(self, run_id: str, points: Sequence[Entity]) -> Iterator[list[Entity]]:
        """Yield the points that the folder lacks; after an error, the folder is read again."""
        new = {
            (point.key, _key(point)): point
            for point in points
            if isinstance(point, Point) and not self._has(run_id, point)
        }
        try:
            yield list(new.values())
        except BaseException:
            for key, _ in new:  # how many of them are there is unknown
                self._earlier.pop(key, None)
            raise
        for key, _ in new:
            self._earlier[key] = set()  # a replay is over with the first point that is new
        self._recent.update(dict.fromkeys(new))
        for old in list(self._recent)[:-_RECENT]:
            del self._recent[old]

    def _has(self, run_id: str, point: Point) -> bool:
        if point.key not in self._earlier:
            found = self._history(run_id, point.key)
            self._earlier[point.key] = {_key(each) for each in found}
        key = _key(point)
        return key in self._earlier[point.key] or (point.key, key) in self._recent


def _key(point: Any) -> _Key:
    return point.step, point.timestamp, repr(float(point.value))  # NaN equals nothing
