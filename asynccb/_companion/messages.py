"""What the training process and its companion say to each other: MessagePack behind a length."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec

from asynccb._journal.settings import JournalSettings
from asynccb._lanes.counts import LaneCounts
from asynccb._state.control import Decision

_LENGTH: Final = Struct("<I")


class LaneSpec(msgspec.Struct, frozen=True):
    """Describe a callback to the companion."""

    name: str
    pickled: bytes
    """The callback itself; passed through the socket, never written down."""
    path: str
    """`module:qualified name` of its class."""
    state: dict[str, Any] | None = None
    """What its `state()` returned, for `asynccb sync`; None for a callback that exports none."""
    first: int = 0
    """Id of the first record that it is to see."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """Open the conversation."""

    directory: str
    key: str
    paths: list[str]
    """`sys.path` of the training process, so that its callbacks can be imported."""
    training_pid: int
    orphan_timeout: float
    """Seconds for which an orphaned companion goes on trying to deliver."""
    settings: JournalSettings
    overwritten: bool = False
    """Whether slots of values in the ring were used again, when there was no companion."""


class AddLane(msgspec.Struct, tag=True, frozen=True):
    """Have the companion serve one more callback."""

    lane: LaneSpec


class FlushUpTo(msgspec.Struct, tag=True, frozen=True):
    """Ask for `Flushed` when every lane, or those named, has delivered all records below `end`."""

    end: int
    lanes: tuple[str, ...] = ()


class CloseBy(msgspec.Struct, tag=True, frozen=True):
    """Have the companion deliver everything and exit, or exit at the deadline."""

    timeout: float


class Ready(msgspec.Struct, tag=True, frozen=True):
    """Say that the companion has mapped the ring and drains it."""

    pid: int


class LaneFailed(msgspec.Struct, tag=True, frozen=True):
    """Say that a callback could not be brought to life in the companion."""

    name: str
    reason: str


class Notice(msgspec.Struct, tag=True, frozen=True):
    """Pass a log record on to the training process."""

    level: int
    text: str


class Fault(msgspec.Struct, tag=True, frozen=True):
    """Pass an error on that is to be raised on the training thread."""

    name: str
    text: str


class Answer(msgspec.Struct, tag=True, frozen=True):
    """Pass on what a hook decided; None where it was not called."""

    name: str
    ticket: int
    decision: Decision | None


class Request(msgspec.Struct, tag=True, frozen=True):
    """Pass on what a callback requests."""

    name: str
    wishes: Decision


class Offer(msgspec.Struct, tag=True, frozen=True):
    """Pass on metrics that a callback adds to the run."""

    name: str
    metrics: dict[str, float]


class Ended(msgspec.Struct, tag=True, frozen=True):
    """Say that a lane has ended and answers no more."""

    name: str


class Counts(msgspec.Struct, tag=True, frozen=True):
    """Report the counts of every lane."""

    lanes: dict[str, LaneCounts]
    journaled: int
    """Number of records in the journal."""


class Flushed(msgspec.Struct, tag=True, frozen=True):
    """Answer `FlushUpTo`."""

    end: int
    lanes: tuple[str, ...] = ()


class Closed(msgspec.Struct, tag=True, frozen=True):
    """Say goodbye; `pending` counts the undelivered records by lane, where there are any."""

    pending: dict[str, int]


ToCompanion: TypeAlias = Hello | AddLane | FlushUpTo | CloseBy
FromCompanion: TypeAlias = (
    Ready
    | LaneFailed
    | Notice
    | Fault
    | Answer
    | Request
    | Offer
    | Ended
    | Counts
    | Flushed
    | Closed
)

_encoder: Final = msgspec.msgpack.Encoder()
_to_companion: Final = msgspec.msgpack.Decoder[ToCompanion](ToCompanion)
_from_companion: Final = msgspec.msgpack.Decoder[FromCompanion](FromCompanion)


def to_companion(body: bytes) -> ToCompanion:
    """Return the message that the training process put into a body."""
    message: ToCompanion = _to_companion.decode(body)
    return message


def from_companion(body: bytes) -> FromCompanion:
    """Return the message that the companion put into a body."""
    message: FromCompanion = _from_companion.decode(body)
    return message


def pack(message: ToCompanion | FromCompanion) -> bytes:
    """Return a message as it goes through the socket."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Cut a stream of bytes into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came and return the bodies that are complete."""
        self._buffer += data
        bodies: list[bytes] = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return bodies
