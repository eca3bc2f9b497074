"""
An HTTP server on loopback that answers as a test's script says, or does not answer at all.

Promises: it uses real sockets only and keeps every request received. When its block ends, the
server and all of its connections are closed.
"""

from __future__ import annotations

import asyncio
import queue
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass
class Request:
    """A request as received."""

    method: str
    target: str
    """Path with the query."""
    headers: dict[str, str]
    """Values by name in lower case."""
    body: bytes


@dataclass
class Answer:
    """The answer to a request, or its beginning if the connection is cut."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    """How often the body is repeated."""
    pause: float = 0.0
    """Seconds before each byte of the body."""
    reason: str = "Scripted"
    """The text after the status."""
    cut_after: int | None = None
    """Bytes of the body to send before the connection is cut; None sends all."""


class CutError(Exception):
    """Raise this in a script: the connection is cut without an answer."""


Script: TypeAlias = Callable[[Request], Awaitable[Answer]]


class ScriptedServer:
    """A server that answers each request as `script` says, and keeps all of them in `requests`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        """The function that answers; may be replaced at any time."""
        self.requests: list[Request] = []
        self.url = ""
        """The server's address, without a slash at the end."""
        self.cut_bodies: list[int] = []
        """For each of the next requests: bytes of its body to read before the connection is cut."""
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await self._exchange(reader, writer)
        self._connections.discard(task)
        writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await self._read(reader)
        self.requests.append(request)
        try:
            answer = await self.script(request)
        except CutError:
            raise ConnectionResetError from None
        length = len(answer.body) * answer.times
        headers = {"Content-Length": str(length), **answer.headers}
        lines = [
            f"HTTP/1.1 {answer.status} {answer.reason}",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await _write_body(writer, answer)

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        if length and self.cut_bodies:
            await reader.readexactly(min(length, self.cut_bodies.pop(0)))
            raise ConnectionResetError
        return Request(method, target, headers, await reader.readexactly(length))

    async def close(self) -> None:
        """Cut all connections."""
        for task in tuple(self._connections):
            task.cancel()
            await asyncio.wait([task])


async def _write_body(writer: asyncio.StreamWriter, answer: Answer) -> None:
    if answer.cut_after is not None:
        writer.write(answer.body[: answer.cut_after])
        await writer.drain()
        raise ConnectionResetError
    step = 1 if answer.pause else len(answer.body)
    for _ in range(answer.times):
        for start in range(0, len(answer.body), step or 1):
            await asyncio.sleep(answer.pause)
            writer.write(answer.body[start : start + step])
            await writer.drain()


@asynccontextmanager
async def scripted(
    script: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """Run a server while the block runs."""
    server = ScriptedServer(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    host, port = listener.sockets[0].getsockname()
    server.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.close()


def in_turn(*answers: Answer | type[CutError]) -> Script:
    """Return a script that gives these answers in turn, and then repeats the last one."""
    left = list(answers)

    async def script(request: Request) -> Answer:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Answer):
            return answer
        raise answer

    return script


async def silence(request: Request) -> Answer:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a server in a separate thread, for tests that block their own thread."""
    started: queue.Queue[ScriptedServer] = queue.Queue()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with scripted(script, tls) as server:
            started.put(server)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield started.get(timeout=10.0)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
