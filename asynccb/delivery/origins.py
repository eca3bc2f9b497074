"""
Share connections and breakers between all clients of an event loop, one of each per origin.

Promises: no header, cookie or credential of one client reaches another. Connections are closed
once no client uses them. Importing this module does not load httpx: opening a connection does, in
a worker thread, because that takes 0.15 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from asynccb._ground.exceptions import AccessError
from asynccb.delivery.breaker import Breaker
from asynccb.delivery.secrecy import proxy_secrets
from asynccb.delivery.transport import Transport

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 4.0
"""Seconds for which an idle connection is kept: less than uvicorn's 5, so that no request is sent
while the server closes the connection."""
_CONNECTIONS: Final = 16


class Origin:
    """The connections to one scheme, host and port, and their breaker."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.breaker = Breaker()
        self.users = 0
        self.hidden: tuple[str, ...] = ()
        """Credentials of the proxies, known once connected; no message quotes them."""
        self._name = name
        self._transport = transport
        self._opening = anyio.Lock()
        self._http: httpx.AsyncClient | None = None

    async def http(self) -> httpx.AsyncClient:
        """Return httpx's client; raise `AccessError` if certificates or a proxy cannot be used."""
        async with self._opening:
            if self._http is None:
                self._http = await anyio.to_thread.run_sync(self._build)
            return self._http

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def _build(self) -> httpx.AsyncClient:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx

        seconds = self._transport.timeout
        self.hidden = proxy_secrets()
        try:
            verify = self._transport.tls()
        except OSError as error:
            raise AccessError(
                f"the certificates for {self._name} cannot be used: {error}"
            ) from error
        try:
            return httpx.AsyncClient(
                verify=verify,
                timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
                limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # stores none
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # The error's own text may quote the proxy's password.
            raise AccessError(
                f"the proxy that the environment names for {self._name} cannot be used "
                f"({type(error).__name__}): check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; a SOCKS "
                "proxy needs `pip install httpx[socks]`"
            ) from None


_Key: TypeAlias = tuple[str, Transport]
# Belongs to the running event loop and ends with it: lanes, uploads and several trackers share a
# server without passing connections to one another.
_origins: Final = RunVar[dict[_Key, Origin]]("asynccb_origins")


class Origins:
    """The loop's origins that one client uses, until `close`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._used: dict[_Key, Origin] = {}

    def of(self, url: str) -> Origin:
        """Return the origin of an address."""
        parts = urlsplit(url)
        name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()
        key = (name, self._transport)
        if key not in self._used:
            shared = _shared()
            origin = shared.setdefault(key, Origin(name, self._transport))
            origin.users += 1
            self._used[key] = origin
        return self._used[key]

    async def close(self) -> None:
        """Release all origins, and close each origin that no other client uses."""
        used, self._used = self._used, {}
        for key, origin in used.items():
            origin.users -= 1
            if not origin.users:
                _shared().pop(key, None)
                await origin.close()


def _shared() -> dict[_Key, Origin]:
    try:
        return _origins.get()
    except LookupError:
        shared: dict[_Key, Origin] = {}
        _origins.set(shared)
        return shared
