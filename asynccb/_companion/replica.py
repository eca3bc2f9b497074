"""
A lane's own copy of the run's state, updated from the changes in the records.

Promises: after a record the copy equals the training process's state when the event was emitted. A
snapshot of the copy never changes.
"""

from __future__ import annotations

from typing import Any, Final

from asynccb._ground.events import EVENTS
from asynccb._journal.reader import JournalReader
from asynccb._lanes.mailbox import Letter
from asynccb._ring.record import END, HISTORY, HISTORY_BIT, LEAVE, RUN, TOLD, Record, decode
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb._state.snapshot import HistoryView, StateSnapshot
from asynccb._state.trainer_state import TrainerState

_GROUP: Final = 2000
"""Most records read together."""
_NO_EVENTS: Final = (RUN, END, LEAVE, TOLD)


class Replica:
    """A lane's copy of the state, moved on by each record."""

    def __init__(self, values: dict[str, Any], *, keep_history: bool) -> None:
        """Take the state's fields at the start, and whether to keep the log history."""
        self.values = dict(TrainerState().__dict__)
        self.values.update(values)
        self.run: RunDescription | None = None
        self._history: list[dict[str, Any]] = []
        self._keep_history = keep_history
        self._args = PlainArguments({})

    def describe(self, record: Record) -> RunDescription:
        """Read a `RUN` record and return its description of the run."""
        self.run = RunDescription.from_record(record.time, record.extra or {})
        self._args = self.run.args
        return self.run

    def apply(self, record: Record) -> None:
        """Update the state to its values at this record."""
        if record.kind == HISTORY:
            self._take_history(record.extra or {})
            return
        values = self.values
        if record.changes is not None:
            values.update(record.changes)
        values["global_step"] = record.step
        values["epoch"] = record.epoch
        if record.flags & HISTORY_BIT and self._keep_history:
            self._history.append({**_named(record.logs or {}), "step": record.step})

    async def reread(self, journal: JournalReader, end: int) -> None:
        """Rebuild the log history from the records below `end`."""
        while records := await journal.read(end, _GROUP):
            for _, payload in records:
                record = decode(payload)
                if record.kind not in _NO_EVENTS:
                    self.apply(record)
        await journal.close()

    def _take_history(self, part: dict[str, Any]) -> None:
        if self._keep_history:
            # A new list, because snapshots keep the old one.
            self._history = [*self._history[: part["start"]], *part["entries"]]

    def letter(self, record: Record) -> Letter:
        """Return the event of an applied record in the form that hooks receive."""
        values = dict(self.values)
        values["log_history"] = HistoryView(self._history, len(self._history))
        keywords: dict[str, Any] = {
            "model": self.run.model if self.run else None,
            "processing_class": None,
            "optimizer": None,
            "lr_scheduler": None,
            "train_dataloader": None,
            "eval_dataloader": None,
        }
        if record.logs is not None:
            keywords["logs"] = _named(record.logs)
        if record.metrics is not None:
            keywords["metrics"] = _named(record.metrics)
        if record.extra is not None:
            keywords.update(record.extra)
        return Letter(
            EVENTS[record.kind],
            self._args,
            StateSnapshot(values),
            record.flags,
            keywords,
            record.time,
            ticket=record.ticket,
        )

    def saved_values(self) -> dict[str, Any]:
        """Return the fields to store in a cursor."""
        return {name: value for name, value in self.values.items() if name != "log_history"}


def _named(values: dict[Any, Any]) -> dict[str, Any]:
    """Return the values with string keys; done here to save the training thread the time."""
    if all(type(key) is str for key in values):
        return values
    return {str(key): value for key, value in values.items()}
