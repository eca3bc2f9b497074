"""
Keep and renew the tokens that a service issues for a limited time.

Promises: a token is kept in memory only, and renewed before it expires; no message quotes a token.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec


class Token(msgspec.Struct, frozen=True):
    """A token and its expiry time in Unix seconds, which is 0 if the token does not state it."""

    value: str
    ends: float = 0.0

    def __repr__(self) -> str:
        return "<Token>"


Source: TypeAlias = Callable[[Token | None], Awaitable[Token]]
"""Returns a new token, given the token that is about to expire or that the server has refused."""


class _Claims(msgspec.Struct):
    exp: float = 0.0


class Keeper:
    """
    The keeper of one tracker's token.

    A token is renewed `margin` seconds before it expires.
    """

    def __init__(self, source: Source, margin: float) -> None:
        self._source = source
        self._margin = margin
        self._token: Token | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the token must be renewed before the next request."""
        token = self._token
        return token is not None and bool(token.ends) and time.time() > token.ends - self._margin

    async def headers(self) -> dict[str, str]:
        """Return the header with the token, which the first call requests."""
        if self._token is None:
            self._token = await self._source(None)
        return {"Authorization": f"Bearer {self._token.value}"}

    async def renewed(self) -> dict[str, str]:
        """Return the header with a new token."""
        self._token = await self._source(self._token)
        return await self.headers()

    def __repr__(self) -> str:
        return "<Keeper>"


def end_of(token: str) -> float:
    """Return the expiry time of a JSON web token (its `exp`), or 0."""
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        decoded = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(decoded, type=_Claims).exp
    except (binascii.Error, msgspec.DecodeError):
        return 0.0
