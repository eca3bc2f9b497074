"""
What is decided on a checkpoint's `on_save`, which comes when the checkpoint is complete.

It is written into the checkpoint when it is in: `on_save.json`, or `on_save_<rank>.json` among
several ranks. A resumed run goes by that, and asks again whoever had not answered.

Promises: a reader sees the file whole or not at all; a checkpoint that is deleted meanwhile, or a
disk that refuses, costs a resumed run no more than asking again.
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
    """Hold what one callback decided."""

    flags: dict[str, bool]
    outcome: Outcome


class Note(msgspec.Struct, frozen=True):
    """Hold what the file says."""

    flags: dict[str, bool]
    """What the event itself changed of the control, for hooks that it does not come to again."""
    answers: dict[str, Answered]
    """By callback."""
    seen: int | None
    """Packed flags as those saw them who decide; None where none does."""


NOTHING: Final = Note({}, {}, None)


@dataclass
class _Awaited:
    """Hold a checkpoint whose `on_save` has not been answered by all."""

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
        """Write what is known now, and the rest when it comes; nothing, if there is nothing."""
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
    """Return what was decided on a checkpoint's `on_save`; `ConfigurationError` for nonsense."""
    if not file.exists():
        return NOTHING
    with naming_damage(file, *_DAMAGE, advice="delete it, and what was decided is asked again"):
        note = msgspec.json.decode(file.read_bytes(), type=Note)
        for flags in (note.flags, *(answer.flags for answer in note.answers.values())):
            Decision(**flags)  # raises TypeError for one that there is not
    return note


def note_name(rank: int, world: int) -> str:
    """Return the name of a rank's note within a checkpoint."""
    return "on_save.json" if world == 1 else f"on_save_{rank}.json"
