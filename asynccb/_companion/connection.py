"""The companion's end of the socket: whole messages, received and sent."""

from __future__ import annotations

from typing import Final

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from asynccb._companion.messages import FromCompanion, ToCompanion, pack, to_companion


class Conversation:
    """Receive and send whole messages."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def receive(self) -> ToCompanion:
        """Return the next message; raises what `GONE` lists where the other side is gone."""
        length = int.from_bytes(await self._buffered.receive_exactly(4), "little")
        return to_companion(await self._buffered.receive_exactly(length))

    async def send(self, messages: list[FromCompanion]) -> None:
        """Send messages; raises what `GONE` lists where the other side is gone."""
        await self._stream.send(b"".join(pack(message) for message in messages))


GONE: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
)
