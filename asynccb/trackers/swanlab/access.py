"""
Log in to a SwanLab server: the key, and the session that it opens.

Source: `swanlab` 0.10.3. Promises: the key is looked up when the connection is made, and kept in
the client alone. A session is renewed a week before its end, at half time if it is shorter, and
whenever the server no longer knows it. No message quotes key or session.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from asynccb._ground.environment import expanded
from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.client import Client

logger = logging.getLogger("asynccb")

VERSION: Final = {"X-SwanLab-SDK-Version": "0.10.3"}
"""Whose protocol this is; a server may want to know."""
HINT: Final = "see that SWANLAB_API_KEY, or what `swanlab login` saved, is a key of this server"
STATUSES: Final = Statuses(give_up=frozenset({501}))
"""A server without POST is not a SwanLab server."""
_MARGIN: Final = timedelta(days=7)


class SavedLogin(NamedTuple):
    """The settings that `swanlab login` has saved, without the key."""

    api_host: str
    web_host: str


class _User(msgspec.Struct):
    username: str


class _Session(msgspec.Struct, rename="camel"):
    sid: str
    expired_at: datetime
    user_info: _User


def saved_login(environ: Mapping[str, str]) -> SavedLogin | None:
    """Return which server the last `swanlab login` was for, in the working directory or at home."""
    found = _saved(environ)
    return None if found is None else found[0]


def api_key(api_host: str, environ: Mapping[str, str]) -> str:
    """
    Return the key for a server: `SWANLAB_API_KEY`, else the key saved for this server.

    Raises `AccessError` without a key.
    """
    if key := environ.get("SWANLAB_API_KEY", "").strip():
        return key
    found = _saved(environ)
    if found is not None and found[0].api_host == api_host:
        return found[1]
    raise AccessError(
        f"there is no SwanLab key for {api_host}: set SWANLAB_API_KEY, or run `swanlab login`"
    )


def _saved(environ: Mapping[str, str]) -> tuple[SavedLogin, str] | None:
    """Return the only entry of the vendor's file: the machine is an address, the login another."""
    own = environ.get("SWANLAB_ROOT", "").strip() or environ.get("SWANLAB_SAVE_DIR", "").strip()
    for folder in (Path(".swanlab"), expanded(own or "~/.swanlab")):
        file = folder / ".netrc"
        try:
            hosts = netrc.netrc(file).hosts if file.is_file() else {}
        except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
            logger.warning("SwanLab: %s cannot be read; run `swanlab login` again", file)
            continue
        for machine, (login, _, password) in hosts.items():
            if password:
                return SavedLogin(machine.removesuffix("/api").rstrip("/"), login), password
    return None


class Login:
    """Open sessions of one key at one server."""

    def __init__(self, api_host: str) -> None:
        """Look up the key; raises `AccessError` without one."""
        key = api_key(api_host, os.environ)
        headers = {**VERSION, "authorization": key}
        self._door = Client(api_host, headers=headers, hint=HINT, statuses=STATUSES)
        self._renewal: datetime | None = None
        self.username = ""
        """Whose key it is; known after the first session has been opened."""

    @property
    def is_ending(self) -> bool:
        """Whether the session is missing, or about to end."""
        return self._renewal is None or datetime.now(UTC) >= self._renewal

    async def headers(self) -> dict[str, str]:
        """Open a session and return the headers that requests in it carry."""
        try:
            reply = await self._door.request("POST", "api/login/api_key")
        except RejectedError as error:
            raise AccessError(f"the SwanLab server gives no session: {error}; {HINT}") from error
        try:
            session = msgspec.convert(reply.json(), _Session)
        except msgspec.ValidationError as error:
            raise AccessError(
                f"this is no answer of a SwanLab server to a login: {error}"
            ) from None
        ends, now = session.expired_at, datetime.now(UTC)
        ends = ends if ends.tzinfo is not None else ends.replace(tzinfo=UTC)
        # One of a few days is not to be renewed with every request, as the vendor's client does.
        self._renewal = ends - min(_MARGIN, (ends - now) / 2)
        self.username = session.user_info.username
        return {**VERSION, "Cookie": f"sid={session.sid}"}

    async def close(self) -> None:
        """Close the connection."""
        await self._door.close()
