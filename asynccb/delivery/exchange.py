"""
Send one request and read its complete answer.

Promises: the exchange ends within its time limit, however slowly the server receives and sends. An
answer occupies at most 16 MiB of memory, compressed or not. The result is reported to the origin's
breaker.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.delivery.answers import Reply, public_url, unreachable
from asynccb.delivery.bodies import Body
from asynccb.delivery.origins import Origin

if TYPE_CHECKING:
    import httpx

_DOWN: Final = frozenset({502, 503, 504})
"""Statuses with which a server, or a gateway before it, reports that it is down for everybody."""
_LARGEST: Final = 16 << 20
"""Bytes of an answer that are kept."""
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_FORMAT: Final = zlib.MAX_WBITS | 32
"""Makes zlib detect gzip and deflate by itself."""


@dataclass(frozen=True)
class Request:
    """A request to send."""

    method: str
    url: str
    params: Mapping[str, str] | None
    headers: Mapping[str, str]
    content: bytes | Body | None
    total: float
    """Seconds that the request and its answer may take."""
    hidden: tuple[str, ...]
    """Credentials, in every form; no message quotes them."""

    def __str__(self) -> str:
        return f"{self.method} {public_url(self.url)}"


async def exchange(origin: Origin, request: Request) -> Reply:
    """
    Send a request and return the answer, whatever its status.

    Raises `TransientError` if no answer arrives, `AccessError` for an address to which nothing can
    be sent, and `OSError` for a file that cannot be read.
    """
    http = await origin.http()
    request = replace(request, hidden=request.hidden + origin.hidden)
    import httpx

    async with origin.breaker.turn():
        reply: Reply | None = None
        try:
            with anyio.move_on_after(request.total):
                reply = await _transfer(http, request)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            # The error's own text may quote a header.
            raise AccessError(
                f"{request} cannot be sent ({type(error).__name__}): check the address"
            ) from None
        except (httpx.RequestError, ssl.SSLError) as error:
            origin.breaker.down()
            # Not chained to the error: its own text may quote credentials that ours hides.
            raise unreachable(error, str(request), request.hidden) from None
        if reply is None:
            origin.breaker.down()
            raise TransientError(
                f"{request} was not complete after {request.total:g} s", cause="total time"
            )
        if reply.status in _DOWN:
            origin.breaker.down(reply.wait(("Retry-After",)))
        else:
            origin.breaker.up()
        return reply


async def _transfer(http: httpx.AsyncClient, request: Request) -> Reply:
    headers, content = dict(request.headers), request.content
    options: dict[str, Any] = {"content": content}
    if isinstance(content, Body):
        length, content_type, options["content"] = await content.open()
        headers = {"Content-Type": content_type, **headers, "Content-Length": str(length)}
    async with http.stream(
        request.method, request.url, params=request.params, headers=headers, **options
    ) as response:
        raw, whole = await _read(response)
        return Reply(
            response.status_code,
            response.headers,
            _plain(raw, whole, response.headers.get("Content-Encoding", ""), request),
            str(request),
            request.hidden,
        )


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """Return an answer's bytes as received, and whether they will do: an error's may be cut off."""
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > _LARGEST:
            return bytes(raw[:_LARGEST]), response.is_error
    return bytes(raw), True


def _plain(raw: bytes, whole: bool, encoding: str, request: Request) -> bytes:
    """Return the content of an answer; raise `TransientError` if it is too large or broken."""
    if whole and encoding.lower() in _COMPRESSED:
        # We ask for no compression, but some servers compress all the same.
        unpack = zlib.decompressobj(_EITHER_FORMAT)
        try:
            raw = unpack.decompress(raw, _LARGEST)
        except zlib.error as error:
            raise TransientError(
                f"{request} was answered with broken {encoding}: {error}"
            ) from None
        whole = not unpack.unconsumed_tail
    if not whole:
        raise TransientError(
            f"{request} was answered with more than {_LARGEST >> 20} MiB", cause="size"
        )
    return raw
