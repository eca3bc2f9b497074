"""
Send a tracker's requests to its server, and raise errors for the failed ones.

Promises: every wait has a limit, and so has the size of an answer. Certificates are verified;
proxies of the environment are used. Each failure is one of three errors, which determine what to do
next. The client does not retry: only the caller knows whether a request may be sent twice.
Connections are shared with all clients of the same origin (`origins.py`), credentials with none.
The module is safe to import anywhere: the first request loads httpx.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import AccessError
from asynccb.delivery.answers import USUAL, Reply, Statuses, public_url
from asynccb.delivery.bodies import Body, FileBody
from asynccb.delivery.exchange import Request, exchange
from asynccb.delivery.origins import Origins
from asynccb.delivery.rate import Bucket
from asynccb.delivery.secrecy import header_secrets
from asynccb.delivery.transport import PUBLIC, Transport

Renew: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]

_SLOWEST: Final = 10_000.0
"""Bytes a second: a body may take the total time-out, plus its time at this pace."""
_JSON: Final = "application/json"


class Client:
    """
    A client for one server, which raises errors for failed requests.

    `base` is the address to which every path is appended, prefix included; a user, query or
    fragment in it is dropped. If a path is itself a complete address, such as a signed address in a
    bucket, the request is sent without our headers. `headers` may contain credentials and are never
    shown. `hint` tells the user what to do if the server refuses access. `statuses` are the
    server's own meanings of statuses. Each request takes a token from `rate`. `renew` returns new
    headers after a 401, and the request is then sent once more; `renew` may not use this client.
    Raises `AccessError` for a header that cannot be sent.

    A request that fails raises `TransientError`, `RejectedError` or `AccessError`. If the server
    tells one request to wait, the client's next requests wait, too.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport: Transport = PUBLIC,
        hint: str = "",
        statuses: Statuses = USUAL,
        rate: Bucket | None = None,
        renew: Renew | None = None,
    ) -> None:
        self.base = public_url(base).rstrip("/")
        self._headers = self._checked(headers or {})
        self._transport = transport
        self._hint = hint
        self._statuses = statuses
        self._rate = rate
        self._renew = renew
        self._renewing = anyio.Lock()
        self._origins = Origins(transport)
        self._held_until = 0.0

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the decoded JSON of a GET."""
        return (await self.request("GET", path, params=params)).json()

    async def post(
        self, path: str, body: Any, *, compress: bool = False, may_be_empty: bool = False
    ) -> Any:
        """
        Send a value as JSON and return the decoded answer.

        If the answer `may_be_empty` and is empty, return None. The body may contain anything that
        msgspec encodes. NaN and infinity would become null: replace them with values that the
        server accepts. `compress` sends the body as gzip.
        """
        content, headers = msgspec.json.encode(body), {"Content-Type": _JSON}
        if compress:
            content = await anyio.to_thread.run_sync(_compressed, content)
            headers["Content-Encoding"] = "gzip"
        reply = await self.request("POST", path, content=content, headers=headers)
        return None if may_be_empty and not reply.content else reply.json()

    async def put_file(self, path: str, file: Path) -> None:
        """Stream a file from disk, with a PUT."""
        await self.request("PUT", path, content=FileBody(file))

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Body | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        Send bytes, a file (`bodies.py`) or nothing, and return the answer, which is a success.

        Also raises `OSError`, for a file that cannot be read.
        """
        foreign = path.startswith(("http://", "https://"))
        url = path if foreign else f"{self.base}/{path}"
        total = self._transport.total + await _size(content) / _SLOWEST
        common = {"User-Agent": "asynccb", "Accept": _JSON, "Accept-Encoding": "identity"}

        async def send(own: Mapping[str, str]) -> Reply:
            await self._wait_for_leave()
            sent = {**common, **own, **(headers or {})}
            whole = Request(method, url, params, sent, content, total, header_secrets(own))
            return await exchange(self._origins.of(url), whole)

        own = {} if foreign else self._headers
        reply = await send(own)
        if reply.status == 401 and own and self._renew is not None:
            reply = await send(await self._renewed(own, self._renew))
        if not foreign and self._statuses.tries_again(reply.status):
            wait = reply.wait(self._statuses.wait_headers) or 0.0
            self._held_until = max(self._held_until, anyio.current_time() + wait)
        reply.check(self._statuses, self._hint)
        return reply

    async def renew(self) -> None:
        """Renew the headers before the server requires it, for credentials about to expire."""
        if self._renew is not None:
            await self._renewed(self._headers, self._renew)

    async def close(self) -> None:
        """Close the connections that no other client uses; a later request opens new ones."""
        await self._origins.close()

    def __repr__(self) -> str:
        return f"<Client {self.base}>"

    async def _wait_for_leave(self) -> None:
        """Wait until the server accepts requests again, and then for a token."""
        held = self._held_until - anyio.current_time()
        if held > 0:
            await anyio.sleep(held)
        if self._rate is not None:
            await self._rate.take()

    async def _renewed(self, used: Mapping[str, str], renew: Renew) -> Mapping[str, str]:
        """Return headers newer than `used`; requests under way at the same time renew once."""
        async with self._renewing:
            if self._headers is used:
                self._headers = self._checked(await renew())
            return self._headers

    def _checked(self, headers: Mapping[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise AccessError(
                    f"the {name} header for {self!r} cannot be sent: its value contains a line "
                    "break or a character that is not ASCII; check the credentials"
                )
        return dict(headers)


async def _size(content: bytes | Body | None) -> int:
    if isinstance(content, Body):
        return (await content.open())[0]
    return len(content or b"")


def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
