"""
Connections and breakers, one of each for an origin, shared by all clients of an event loop.

Promises: no header, cookie or credential of one client reaches another; what nobody uses any more
is closed. Importing this loads no httpx: opening does, in a worker thread, because that takes
0.15 s.
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
"""Seconds an idle connection is kept: less than uvicorn's 5, to use none while it closes."""
_CONNECTIONS: Final = 16


class Origin:
    """Hold the connections to one scheme, host and port, and whether it is down."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.breaker = Breaker()
        self.users = 0
        self.hidden: tuple[str, ...] = ()
        """Credentials of the proxies, once connected, so that no message quotes them."""
        self._name = name
        self._transport = transport
        self._opening = anyio.Lock()
        self._http: httpx.AsyncClient | None = None

    async def http(self) -> httpx.AsyncClient:
        """Return what sends; raises `AccessError` for certificates or a proxy of no use."""
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
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # keeps none
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # The error's own text may quote the proxy's password.
            raise AccessError(
                f"the proxy that the environment names for {self._name} cannot be used "
                f"({type(error).__name__}): check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; a SOCKS "
                "proxy needs `pip install httpx[socks]`"
            ) from None


_Key: TypeAlias = tuple[str, Transport]
# Of the running event loop, and gone with it: lanes, uploads and several trackers share a server
# without one of them having to hand the others its connections.
_origins: Final = RunVar[dict[_Key, Origin]]("asynccb_origins")


class Origins:
    """Keep what one client uses of the loop's origins, until `close`."""

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
        """Let go of all, and close those that no other client uses."""
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
