"""The fields of a run that its plain Python and the compiled code both use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_LARGEST: Final = 2**63 - 1


def within_word(step: Any) -> int:
    """Return a step within the 64 bits of a field; 0 for a step that is no number."""
    try:
        return max(-_LARGEST, min(_LARGEST, int(step)))
    except (TypeError, ValueError, OverflowError):  # the event itself refuses such a step
        return 0


@dataclass(slots=True)
class Shared:
    """The plain Python form of `Shared` in `hot.c`; each field has one owner, which writes it."""

    quiet: bool = False
    """Whether nothing can be due at a boundary. Owner: `Decisions`."""
    last_boundary: int = 0
    """Step of the last boundary. Owner: `Decisions`."""
    seen: Any = None
    """Values of the slow fields of the state in the last record. Owner: `ChangeTracker`."""
    wants_history: bool = False
    """Whether the companion gets every entry of the history. Owner: `RecordWriter`."""
    history: Any = None
    """The list whose entries it has; None if it has none yet. Owner: `RecordWriter`."""
    sent: int = 0
    """Number of entries that it has. Owner: `RecordWriter`."""
    held: bool = False
    """Whether records wait for room in the ring, which must be written first. Owner: `Outlet`."""
    next_slot: int = 0
    """Position of the next slot for a value of a device. Owner: `DeviceStaging`."""
    free_slot: int = 0
    """Position below which slots are empty or in use. Owner: `DeviceStaging`."""
    events: int = 0
    """Events that some callback listened to. Owner: `Emitter`."""
    busy: int = 0
    """Nanoseconds that the training thread has spent emitting. Owner: `Emitter`."""
    next_look: int = 0
    """Unix nanoseconds of the next look at the companion and at devices. Owner: `Emitter`."""
