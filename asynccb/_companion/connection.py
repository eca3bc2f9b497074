"""The companion's end of the socket: receives and sends whole messages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from asynccb._companion.messages import FromCompanion, ToCompanion, pack, to_companion
from asynccb._lanes.bell import Bell


class Conversation:
    """The companion's end of the conversation with the training process."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def receive(self) -> ToCompanion:
        """Return the next message; raise one of `GONE` if the other side is gone."""
        length = int.from_bytes(await self._buffered.receive_exactly(4), "little")
        return to_companion(await self._buffered.receive_exactly(length))

    async def send(self, messages: list[FromCompanion]) -> None:
        """Send messages; raise one of `GONE` if the other side is gone."""
        await self._stream.send(b"".join(pack(message) for message in messages))


GONE: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
)

_LOOK: Final = 0.005
"""Seconds between two checks of whether the queued messages are sent."""
_SPEECH: Final = 1.0
"""Most seconds to wait for the queued messages to be sent."""


class Outgoing:
    """A queue of messages to the training process; create it on the loop that sends them."""

    def __init__(self, conversation: Conversation) -> None:
        """Take the conversation to send the messages through."""
        self._conversation = conversation
        self._loop = asyncio.get_running_loop()
        self._messages: list[FromCompanion] = []
        self._bell = Bell()
        self._queued = self._sent = 0
        self._sent_bell = Bell()
        self.moot = False
        """Whether the training process no longer listens."""

    def say(self, message: FromCompanion) -> None:
        """Queue a message; may be called on any thread."""
        if not self.moot:
            with contextlib.suppress(RuntimeError):  # the loop has ended: the process is exiting
                self._loop.call_soon_threadsafe(self._queue, message)

    def _queue(self, message: FromCompanion) -> None:
        self._messages.append(message)
        self._queued += 1
        self._bell.ring()

    async def spoken(self) -> bool:
        """Wait up to `_SPEECH` seconds until the queue is sent; return whether it is. Any loop."""
        sending = asyncio.run_coroutine_threadsafe(self._send_queued(), self._loop)
        with anyio.move_on_after(_SPEECH):
            await asyncio.wrap_future(sending)
            return True
        return False

    async def _send_queued(self) -> None:
        end = self._queued
        while self._sent < end and not self.moot:
            await self._sent_bell.wait(_LOOK)

    async def speak(self) -> None:
        """Send queued messages until cancelled, or until the other side is gone."""
        with contextlib.suppress(*GONE):
            while True:
                if not self._messages:
                    await self._bell.wait()
                await self._send()

    async def speak_last(self) -> None:
        """Send the remaining messages, after `speak` has ended."""
        with contextlib.suppress(*GONE):
            await self._send()

    async def _send(self) -> None:
        waiting, self._messages = self._messages, []
        await self._conversation.send(waiting)
        self._sent += len(waiting)
        self._sent_bell.ring()
