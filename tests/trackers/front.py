"""
A loopback front before another server, which it forwards to, and which can be taken away.

It runs in a thread of its own, so that tests may block theirs, and a companion may talk to it.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx

from tests.trackers.scripted import Answer, CutError, Request, ScriptedServer, serving, silence

_HOP = frozenset({"connection", "content-length", "host", "transfer-encoding", "accept-encoding"})

Rules = Callable[[Request], Awaitable[Answer | None]]


async def no_rules(request: Request) -> Answer | None:
    """Forward everything as it is."""
    return None


class Front:
    """Forward requests to `upstream`, unless `rules` answer them, or the server is away."""

    def __init__(self, upstream: str, rules: Rules = no_rules) -> None:
        self.upstream = upstream
        self.rules = rules
        self.away = False
        """Cut every connection without an answer."""
        self.silent = False
        """Take every request and never answer."""
        self.refusing = False
        """Answer 401 to everything, quoting the credentials, as some servers do."""
        self.losing = False
        """Let the server do what is asked, then cut the connection: once for each address."""
        self._lost: set[str] = set()
        self._server: ScriptedServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    @property
    def requests(self) -> list[Request]:
        assert self._server is not None
        return self._server.requests

    async def __call__(self, request: Request) -> Answer:
        if self.away:
            raise CutError
        if self.silent:
            await silence(request)
        if self.refusing:
            shown = " ".join(request.headers.values()) + request.target
            return Answer(401, f"not you: {shown}".encode())
        answer = await self.rules(request) or await pass_on(self.upstream, request)
        path = request.target.partition("?")[0]
        if self.losing and path not in self._lost:
            self._lost.add(path)
            raise CutError
        return answer


async def pass_on(upstream: str, request: Request, target: str | None = None) -> Answer:
    """Return what another server answers to a request, at the same or another target."""
    headers = {k: v for k, v in request.headers.items() if k not in _HOP}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.request(
            request.method, upstream + (target or request.target),
            content=request.body, headers=headers,
        )  # fmt: skip
    kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "etag")}
    return Answer(answer.status_code, answer.content, kept)


@contextmanager
def fronting(
    upstream: str, rules: Rules = no_rules, tls: ssl.SSLContext | None = None
) -> Iterator[Front]:
    """Run a front for as long as the block lasts."""
    front = Front(upstream, rules)
    with serving(front, tls) as server:
        front._server = server
        yield front
