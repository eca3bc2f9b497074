"""An HTTP server on loopback that answers as the test says, or does not answer at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


class CutError(Exception):
    """Raised by a script: the connection is cut without an answer."""


Script = Callable[[Request], Awaitable[Answer]]


class ScriptedServer:
    """Answer each request with what `script` returns; `requests` holds all that came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await self._exchange(reader, writer)
        self._connections.discard(task)
        writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        self.requests.append(request)
        try:
            answer = await self.script(request)
        except CutError:
            raise ConnectionResetError from None
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        await writer.drain()

    async def close(self) -> None:
        for task in tuple(self._connections):
            task.cancel()
            await asyncio.wait([task])


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


@asynccontextmanager
async def scripted(
    script: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """Run a server for as long as the block lasts."""
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
    """Return a script that gives these answers one after another, and the last one from then on."""
    left = list(answers)

    async def script(request: Request) -> Answer:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Answer):
            return answer
        raise answer

    return script


async def forward(upstream: str, request: Request) -> Answer:
    """Return what another server answers to the same request."""
    headers = {k: v for k, v in request.headers.items() if k in ("content-type", "authorization")}
    async with httpx.AsyncClient(base_url=upstream, trust_env=False) as client:
        answer = await client.request(
            request.method, request.target, content=request.body, headers=headers
        )
    return Answer(answer.status_code, answer.content)
