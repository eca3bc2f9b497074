"""
One request and its whole answer.

Promises: it ends within its time, however slowly the server takes and gives; an answer takes at
most 16 MiB of memory, compressed or not; the origin's breaker hears how it went.
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
"""Statuses by which a server, or what stands before it, says that it is down for everybody."""
_LARGEST: Final = 16 << 20
"""Bytes of an answer that are kept."""
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_FORMAT: Final = zlib.MAX_WBITS | 32
"""Has zlib tell gzip from deflate by itself."""


@dataclass(frozen=True)
class Request:
    """Say what is to be sent."""

    method: str
    url: str
    params: Mapping[str, str] | None
    headers: Mapping[str, str]
    content: bytes | Body | None
    total: float
    """Seconds that it may take, with its answer."""
    hidden: tuple[str, ...]
    """Credentials, in every form, so that no message quotes them."""

    def __str__(self) -> str:
        return f"{self.method} {public_url(self.url)}"


async def exchange(origin: Origin, request: Request) -> Reply:
    """
    Send a request and return the answer, whatever its status.

    Raises `TransientError` where there is none, `AccessError` for an address that cannot be asked,
    and `OSError` for a file that cannot be read.
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
            # Not from the error, whose own text may quote what ours hides.
            raise unreachable(error, str(request), request.hidden) from None
        if reply is None:
            origin.breaker.down()
            raise TransientError(
                f"{request} was not done after {request.total:g} s", cause="total time"
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
    """Return an answer's bytes as they came, and whether they are all there are."""
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > _LARGEST:
            return bytes(raw[:_LARGEST]), response.is_error
    return bytes(raw), True


def _plain(raw: bytes, whole: bool, encoding: str, request: Request) -> bytes:
    """Return the content of an answer; raise `TransientError` where it is too much."""
    if whole and encoding.lower() in _COMPRESSED:
        # We ask for none, and some compress all the same.
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
