"""The messages between the training process and its companion: a length, then MessagePack."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec

from asynccb._journal.settings import JournalSettings
from asynccb._lanes.counts import LaneCounts
from asynccb._state.control import Decision

_LENGTH: Final = Struct("<I")


class LaneSpec(msgspec.Struct, frozen=True):
    """A callback for the companion to serve."""

    name: str
    pickled: bytes
    """The callback itself; sent through the socket, never written to disk."""
    path: str
    """`module:qualified name` of its class."""
    state: dict[str, Any] | None = None
    """The result of its `state()`, for `asynccb sync`; None if the callback exports no state."""
    first: int = 0
    """Id of the first record for this callback."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The first message, from the training process."""

    directory: str
    key: str
    paths: list[str]
    """The training process's `sys.path`, from which the companion imports its callbacks."""
    training_pid: int
    orphan_timeout: float
    """Seconds for which an orphaned companion keeps trying to deliver."""
    settings: JournalSettings
    overwritten: bool = False
    """Whether value slots of the ring were reused while no companion was running."""


class AddLane(msgspec.Struct, tag=True, frozen=True):
    """A request to serve one more callback."""

    lane: LaneSpec


class FlushUpTo(msgspec.Struct, tag=True, frozen=True):
    """A request for `Flushed` once all lanes, or the named ones, have delivered up to `end`."""

    end: int
    lanes: tuple[str, ...] = ()


class CloseBy(msgspec.Struct, tag=True, frozen=True):
    """A request to deliver everything and exit, at the deadline at the latest."""

    timeout: float


class Ready(msgspec.Struct, tag=True, frozen=True):
    """A report that the companion has mapped the ring and drains it."""

    pid: int


class LaneFailed(msgspec.Struct, tag=True, frozen=True):
    """A report that a callback could not be created in the companion."""

    name: str
    reason: str


class Notice(msgspec.Struct, tag=True, frozen=True):
    """A log record, forwarded to the training process."""

    level: int
    text: str


class Fault(msgspec.Struct, tag=True, frozen=True):
    """An error to raise on the training thread."""

    name: str
    text: str


class Answer(msgspec.Struct, tag=True, frozen=True):
    """A hook's decision; None if the hook was not called."""

    name: str
    ticket: int
    decision: Decision | None


class Request(msgspec.Struct, tag=True, frozen=True):
    """A callback's request to the training."""

    name: str
    wishes: Decision


class Offer(msgspec.Struct, tag=True, frozen=True):
    """Metrics that a callback adds to the run."""

    name: str
    metrics: dict[str, float]


class Ended(msgspec.Struct, tag=True, frozen=True):
    """A report that a lane has ended and sends no more answers."""

    name: str


class Counts(msgspec.Struct, tag=True, frozen=True):
    """The counts of every lane."""

    lanes: dict[str, LaneCounts]
    journaled: int
    """Number of records in the journal."""


class Flushed(msgspec.Struct, tag=True, frozen=True):
    """The answer to `FlushUpTo`."""

    end: int
    lanes: tuple[str, ...] = ()


class Closed(msgspec.Struct, tag=True, frozen=True):
    """The last message; `pending` counts undelivered records, for lanes that have any."""

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
    """Decode a message body from the training process."""
    message: ToCompanion = _to_companion.decode(body)
    return message


def from_companion(body: bytes) -> FromCompanion:
    """Decode a message body from the companion."""
    message: FromCompanion = _from_companion.decode(body)
    return message


def pack(message: ToCompanion | FromCompanion) -> bytes:
    """Encode a message for the socket."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """A splitter of a byte stream into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Accept the next received bytes and return the bodies that are now complete."""
        self._buffer += data
        bodies: list[bytes] = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return bodies
