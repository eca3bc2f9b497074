"""
One HTTP client for each server, and what its answers mean.

Promises: every wait has a limit, certificates are verified, proxies of the environment are used,
and each failure is one of three errors that say what to do next (`_answers.raise_for`). It does not
retry: who calls it knows whether the same request may be sent twice. Safe to import anywhere: httpx
is loaded by the first request, in a worker thread, because that takes 0.15 s.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiofiles
import aiofiles.os
import anyio
import anyio.to_thread
import msgspec

from asynccb._exceptions import AccessError
from asynccb.delivery._answers import decode, public_url, raise_for, unreachable

if TYPE_CHECKING:
    import httpx

_CHUNK: Final = 1 << 20
"""Bytes of a file that are read at once: each read is a trip to a worker thread, about 0.1 ms."""

_CONNECT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 4.0
"""Seconds an idle connection is kept: less than uvicorn's 5, to use none while it closes."""


@dataclass(frozen=True)
class Transport:
    """Say how a server is reached; the defaults suit any server with a public certificate."""

    timeout: float = 120.0
    """Seconds for which a read or write may make no progress."""
    verify: bool = True
    """Whether the server's certificate is verified."""
    authority: str | None = None
    """File or directory with the certificates to trust, instead of the public ones."""
    certificate: str | None = None
    """File with our own certificate and key."""

    def tls(self) -> ssl.SSLContext | bool:
        """Return what httpx verifies with; raise `OSError` for a file that cannot be used."""
        if self.authority is None and self.certificate is None:
            return self.verify
        folder = self.authority is not None and Path(self.authority).is_dir()
        trust = ssl.create_default_context(
            cafile=None if folder else self.authority, capath=self.authority if folder else None
        )
        if not self.verify:
            trust.check_hostname = False
            trust.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            trust.load_cert_chain(self.certificate)
        return trust


class Client:
    """
    Send requests to one server and raise what its answers mean.

    `base` is the address that every path is appended to, prefix included; a user, query or fragment
    in it is dropped. `headers` may hold credentials: they are sent with every request and shown
    nowhere. `hint` tells the user what to
    do when the server refuses access. Raises `AccessError` for a header that cannot be sent.

    Every request raises `TransientError`, `RejectedError` or `AccessError` when it fails.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport: Transport = Transport(),
        hint: str = "",
    ) -> None:
        self.base = public_url(base).rstrip("/")
        self._headers = {"User-Agent": "asynccb", "Accept": "application/json", **(headers or {})}
        for name, value in self._headers.items():
            if not (value.isascii() and value.isprintable()):
                raise AccessError(
                    f"the {name} header for {self!r} cannot be sent: its value has a line break "
                    "or a character that is not ASCII; check the credentials it is made of"
                )
        self._transport = transport
        self._hint = hint
        self._opening = anyio.Lock()
        self._http: httpx.AsyncClient | None = None

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the decoded JSON of a GET."""
        return await self._json("GET", path, params=params)

    async def post(self, path: str, body: Any) -> Any:
        """
        Send a value as JSON and return the decoded answer.

        The body may hold anything that msgspec encodes. NaN and infinity would become null: replace
        them with what the server takes.
        """
        content = msgspec.json.encode(body)
        return await self._json(
            "POST", path, content=content, headers={"Content-Type": "application/json"}
        )

    async def put_file(self, path: str, file: Path) -> None:
        """
        Stream a file from disk, 1 MiB at a time.

        Raises `OSError` where the file cannot be read, or gets shorter meanwhile. What is appended
        to it meanwhile is not sent.
        """
        size = (await aiofiles.os.stat(file)).st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        await self._send("PUT", path, content=_chunks(file, size), headers=headers)

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def __repr__(self) -> str:
        return f"<Client {self.base}>"

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        answer = await self._send(method, path, **options)
        return decode(answer, self._named(method, path), self._hint)

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        http = await self._open()
        import httpx

        named = self._named(method, path)
        try:
            answer = await http.request(method, f"{self.base}/{path}", **options)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            # The error's own text may quote a header.
            raise AccessError(
                f"{named} cannot be sent ({type(error).__name__}): check the address"
            ) from None
        except (httpx.RequestError, ssl.SSLError) as error:
            raise unreachable(error, named) from error
        raise_for(answer, named, self._hint)
        return answer

    def _named(self, method: str, path: str) -> str:
        return f"{method} {public_url(f'{self.base}/{path}')}"

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._http is None:
                self._http = await anyio.to_thread.run_sync(self._build)
            return self._http

    def _build(self) -> httpx.AsyncClient:
        import httpx

        seconds = self._transport.timeout
        try:
            verify = self._transport.tls()
        except OSError as error:
            raise AccessError(f"the certificates for {self!r} cannot be used: {error}") from error
        try:
            return httpx.AsyncClient(
                headers=self._headers,
                verify=verify,
                timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
                limits=httpx.Limits(max_connections=8, keepalive_expiry=_IDLE_SECONDS),
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # The error's own text may quote the proxy's password.
            raise AccessError(
                f"the proxy that the environment names for {self!r} cannot be used "
                f"({type(error).__name__}): check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; a SOCKS "
                "proxy needs `pip install httpx[socks]`"
            ) from None


async def _chunks(file: Path, size: int) -> AsyncIterator[bytes]:
    """Read exactly `size` bytes, which the request has announced."""
    left = size
    async with aiofiles.open(file, "rb") as stream:
        while left:
            chunk = await stream.read(min(_CHUNK, left))
            if not chunk:
                raise OSError(f"{file} has become shorter while it was sent")
            left -= len(chunk)
            yield chunk
