"""
The names of a run's curves at one service.

Promises: two names that a run logs never share a curve. A name that the service takes stays as it
is. A name that had to be changed is said once. The same name has the same curve in any process, so
a resumed run continues its curves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asynccb._ground.plain import clean, leaves
from asynccb.trackers.names import Names, grouped, marked, quoted
from asynccb.trackers.shared.answers import Reject

logger = logging.getLogger("asynccb")

_CHANGED: Final = 100
"""Most changed names that one run warns of."""
_KEPT: Final = 10_000
"""Most names to remember."""


def _drop(what: str, why: str, *, cause: str | None = None, record: Any = None) -> None:
    """Let a value go, for a service that takes no nested mappings apart."""


class CurveNames:
    """The curves of one run, by the names that are logged."""

    def __init__(
        self,
        service: str,
        accepted: Callable[[str], str],
        *,
        grouping: Callable[[str], str] = grouped,
        folded: Callable[[str], str] | None = None,
        reject: Reject = _drop,
    ) -> None:
        """
        Take a service's name, and the function that returns the name that the service accepts.

        `accepted` is pure. Different names stay different in it, and in `grouping`, or else
        `folded` returns the same for all names that must not be there together: of those, the first
        that is logged keeps its name, which `attributes` remembers. `reject` is called for a
        name that `apart` finds twice in a log.
        """
        self._service = service
        self._accepted = accepted
        self._grouping = grouping
        self._folded = folded
        self._reject = reject
        self._known: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._said: set[str] = set()

    def of(self, logs: Mapping[str, Any], names: Names) -> dict[str, Any]:
        """Return logged values by the names of their curves, in their order."""
        return {self._curve(name, names): value for name, value in logs.items()}

    def apart(self, logs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return logged values with nested mappings taken apart, as `a/b`."""
        if not any(isinstance(value, Mapping) for value in logs.values()):
            return logs
        flat: dict[str, Any] = {}
        for name, value in leaves(logs, "/"):
            if name in flat:
                why = "one log has two values of this name, one of them in a dict; rename one"
                self._reject(f"a second value of {quoted(name)}", why)
            else:
                flat[name] = value
        return flat

    def attributes(self) -> dict[str, str]:
        """Return the curves whose names were changed, by the names that were logged."""
        return {name: curve for name, curve in self._known.items() if name != curve}

    def restore(self, attributes: Mapping[str, str], curves: Iterable[str]) -> None:
        """Take them back, beside all curves of the run."""
        self._known.update(attributes)
        if self._folded is None:
            return
        for name, curve in attributes.items():
            self._owners[self._folded(curve)] = name
        for curve in curves:
            self._owners.setdefault(self._folded(curve), curve)

    def _curve(self, name: str, names: Names) -> str:
        curve = self._known.get(name)
        if curve is None:
            shown = self._grouping(name) if names == "grouped" else name
            curve = self._accepted(shown)
            owner = self._owner(name, curve)
            if owner != name:
                curve = marked(curve, name)
                why = f"would show {quoted(name)} as the curve of {quoted(owner)}"
                self._say(name, why, curve)
            elif curve != shown:
                self._say(shown, f"accepts no metric called {quoted(shown)}", curve)
            if len(self._known) >= _KEPT and self._folded is None:
                self._known.clear()
            self._known[name] = curve
        return curve

    def _owner(self, name: str, curve: str) -> str:
        """Return the name that has a curve, which is this one if the curve is new."""
        if self._folded is None:
            return name
        return self._owners.setdefault(self._folded(curve), name)

    def _say(self, name: str, why: str, curve: str) -> None:
        """Warn once that a metric has another name at the service."""
        if name in self._said or len(self._said) >= _CHANGED:
            return
        self._said.add(name)
        if clean(name) == name:  # the changed name of one with a password may still contain it
            logger.warning(
                "%s %s; it is called %s there (said once)", self._service, why, quoted(curve)
            )
