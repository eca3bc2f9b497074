"""The counts of a dispatcher, and the line that sums them up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from asynccb._lanes.counts import LaneCounts


@dataclass(frozen=True)
class Statistics:
    """The counts that `CallbackDispatcher.statistics()` returns."""

    events: int
    """Events that some callback listened to."""
    steps: int
    """Update steps so far, of all trainings; a resumed run counts from its checkpoint on."""
    seconds: float
    """Time that the training thread spent emitting, its inline hooks included."""
    dropped: int
    """Events that no lane in the companion received: its ring was full, or it was gone."""
    blocked: float
    """Seconds for which the training thread waited for room in the ring."""
    odd: int
    """Logged values other than numbers, text and short lists of numbers, and records with text that
    is not valid Unicode."""
    callbacks: dict[str, LaneCounts]
    """Counts of the callbacks that have async hooks."""
    filtered_losses: int = 0
    """Losses of this rank, one a batch, that were NaN or infinite and that `asynccb.Trainer`
    replaced in its logs (`logging_nan_inf_filter`); counted at each log."""

    @property
    def delivered(self) -> int:
        """Hook calls that returned, over all callbacks."""
        return sum(counts.delivered for counts in self.callbacks.values())

    @property
    def microseconds_per_step(self) -> float:
        """Microseconds of the training thread's time for each step; all of them without a step."""
        return 1e6 * self.seconds / max(1, self.steps)

    def summary(self, pending: Mapping[str, int], in_journal: Collection[str] = ()) -> str:
        """
        Return the run in one line.

        `pending` is the number of events that are left, by callback. For callbacks whose events are
        `in_journal` it is the number of records, which are events, descriptions of the run, and its
        end.
        """
        each = " a step" if self.steps else ""
        parts = [
            f"{self.steps} steps, {self.events} events, "
            f"{self.microseconds_per_step:.0f} us of training time{each}"
        ]
        if self.dropped:
            parts.append(f"{self.dropped} events dropped")
        if self.filtered_losses:
            parts.append(f"{self.filtered_losses} losses were NaN or infinite")
        for name, counts in self.callbacks.items():
            unit = "records" if name in in_journal else "events"
            parts.append(f"{name}: {_describe(counts, pending.get(name, 0), unit)}")
        return "asynccb: " + "; ".join(parts)


@dataclass
class LossCount:
    """What a loop that replaces losses in its logs has counted of them."""

    filtered: int = 0


class StepCount:
    """
    The update steps of one training after another, however each training ends.

    Counting a step costs nothing: the state of a training has the number of its last step.
    """

    def __init__(self, state: Any) -> None:
        """Begin with a training, or with a loop that never emits `on_train_begin`."""
        self._before = 0
        self._state = state
        self._first = _number(state.global_step)

    def mark(self, state: Any) -> None:
        """Count on from a state's step, when a training begins or ends."""
        self._before = self.total
        self._state, self._first = state, _number(state.global_step)

    @property
    def total(self) -> int:
        """Steps so far."""
        return self._before + max(0, _number(self._state.global_step) - self._first)


def _number(step: Any) -> int:
    """Return a step as a number; anything else, which the event itself refuses, as 0."""
    try:
        return int(step)
    except (TypeError, ValueError, OverflowError):
        return 0


def _describe(counts: LaneCounts, pending: int, unit: str) -> str:
    words = [f"{counts.delivered} delivered"]
    for name in ("failed", "timed_out", "dropped", "rejected", "retried", "stalled"):
        if count := getattr(counts, name):
            words.append(f"{count} {name.replace('_', ' ')}")
    if counts.decided:
        words.append(f"{counts.decided} decisions applied")
    if counts.undue:
        words.append(f"{counts.undue} decisions for steps that did not come")
    if counts.late:
        words.append(f"{counts.late} decisions late")
    if counts.waited >= 0.001:
        words.append(f"training waited {counts.waited:.2f} s for its decisions")
    if counts.blocked >= 0.001:
        words.append(f"made training wait {counts.blocked:.2f} s")
    if pending:
        words.append(f"{pending} {unit} NOT delivered")
    if counts.disabled:
        words.append("gave up")
    return ", ".join(words) + (f" -> {counts.address}" if counts.address else "")
