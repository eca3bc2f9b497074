"""
Tokens that a service gives for some time, whatever the service.

Promises: a token is kept in memory alone, and renewed before it expires; no message quotes one.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec


class Token(msgspec.Struct, frozen=True):
    """Hold a token and when it ends, in Unix seconds; 0 where it does not say."""

    value: str
    ends: float = 0.0

    def __repr__(self) -> str:
        return "<Token>"


Source: TypeAlias = Callable[[Token | None], Awaitable[Token]]
"""Returns a new token; takes the one that is ending, or that the server has refused."""


class _Claims(msgspec.Struct):
    exp: float = 0.0


class Keeper:
    """
    Keep the token of one tracker.

    `margin` is how many seconds before its end a token is renewed.
    """

    def __init__(self, source: Source, margin: float) -> None:
        self._source = source
        self._margin = margin
        self._token: Token | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the token is to be renewed before the next request."""
        token = self._token
        return token is not None and bool(token.ends) and time.time() > token.ends - self._margin

    async def headers(self) -> dict[str, str]:
        """Return the header with the token, got when there is none yet."""
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
    """Return when a JSON web token ends (its `exp`), or 0."""
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        decoded = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(decoded, type=_Claims).exp
    except (binascii.Error, msgspec.DecodeError):
        return 0.0
