"""
The decisions on a checkpoint's `on_save`, which is emitted when the checkpoint is complete.

They are written into the checkpoint once they are in: `on_save.json`, or `on_save_<rank>.json`
among several ranks. A resumed run applies them, and asks the callbacks that had not answered again.

Promises: a reader sees the file whole or not at all. If the checkpoint is deleted in the meantime,
or the disk refuses, a resumed run only has to ask again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from asynccb._decisions.schedule import Outcome, Ticket
from asynccb._ground.exceptions import naming_damage
from asynccb._state.control import Decision

logger = logging.getLogger("asynccb")

_DAMAGE: Final = (OSError, TypeError, UnicodeDecodeError, msgspec.DecodeError)


class Answered(msgspec.Struct, frozen=True):
    """The decision of one callback."""

    flags: dict[str, bool]
    outcome: Outcome


class Note(msgspec.Struct, frozen=True):
    """The contents of the file."""

    flags: dict[str, bool]
    """The flags that the event itself changed; hooks that did so do not receive it again."""
    answers: dict[str, Answered]
    """By callback."""
    seen: int | None
    """Packed flags as the hooks that decide saw them; None without such hooks."""


NOTHING: Final = Note({}, {}, None)


@dataclass
class _Awaited:
    """A checkpoint whose `on_save` some callbacks have not answered yet."""

    file: Path
    flags: dict[str, bool]
    tickets: Sequence[Ticket]
    seen: int | None
    written: int = -1
    """Answers in the file."""

    def note(self) -> Note:
        answers = {
            ticket.name: Answered(ticket.decision.opinions, ticket.outcome)
            for ticket in self.tickets
            if ticket.outcome is not None
        }
        return Note(self.flags, answers, self.seen)


class SaveNotes:
    """Write the notes of one run's checkpoints."""

    def __init__(self) -> None:
        self._awaited: list[_Awaited] = []
        self._complained = False

    def __bool__(self) -> bool:
        return bool(self._awaited)

    def begin(
        self, file: Path, flags: Decision, tickets: Sequence[Ticket], seen: int | None
    ) -> None:
        """Write the decisions known now, and later ones when they arrive."""
        if flags.opinions or tickets:
            self._awaited.append(_Awaited(file, flags.opinions, tickets, seen))
            self.write()

    def write(self) -> None:
        """Write the answers that have come since the last time."""
        for each in self._awaited:
            note = each.note()
            if len(note.answers) > each.written:
                each.written = len(note.answers)
                self._replace(each.file, msgspec.json.encode(note))
        self._awaited = [each for each in self._awaited if each.written < len(each.tickets)]

    def _replace(self, file: Path, data: bytes) -> None:
        # Beside the checkpoint, which others may be copying at this moment.
        new = file.parent.parent / f".{file.parent.name}.{file.name}.new"
        try:
            new.write_bytes(data + b"\n")
            os.replace(new, file)
        except OSError as error:
            new.unlink(missing_ok=True)
            if file.parent.is_dir() and not self._complained:
                self._complained = True
                logger.warning(
                    "%s cannot be written (%s): a run that resumes from there asks again (said "
                    "once)",
                    *(file, error),
                )


def read_note(file: Path) -> Note:
    """Return the decisions on a checkpoint's `on_save`; raise `ConfigurationError` if damaged."""
    if not file.exists():
        return NOTHING
    with naming_damage(file, *_DAMAGE, advice="delete it, and what was decided is asked again"):
        note = msgspec.json.decode(file.read_bytes(), type=Note)
        for flags in (note.flags, *(answer.flags for answer in note.answers.values())):
            Decision(**flags)  # raises TypeError for an unknown flag
    return note


def note_name(rank: int, world: int) -> str:
    """Return the name of a rank's note within a checkpoint."""
    return "on_save.json" if world == 1 else f"on_save_{rank}.json"
