"""
Tokens for an AzureML workspace: the job's own, which the service renews, or those of an identity.

Promises: a token is kept in memory alone, and renewed before it expires; no message quotes one.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import anyio.to_thread
import msgspec

from asynccb._exceptions import AccessError, RejectedError
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport

_MARGIN: Final = 95.0
"""Seconds before a token's end at which the service's own client renews it."""
_AUTHORITY: Final = "https://login.microsoftonline.com"
_SCOPE: Final = "https://management.azure.com/.default"
_HINT: Final = (
    "set MLFLOW_TRACKING_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of an "
    "identity that may write to the workspace, or install azure-identity"
)


class Token(msgspec.Struct, frozen=True):
    """Hold a token and when it ends, in Unix seconds; 0 where it does not say."""

    value: str
    ends: float = 0.0

    @property
    def is_ending(self) -> bool:
        """Whether it is time for another one."""
        return bool(self.ends) and time.time() > self.ends - _MARGIN

    def __repr__(self) -> str:
        return "<Token>"


Source: TypeAlias = Callable[[Token | None], Awaitable[Token]]
"""Returns a new token; takes the one that is ending, or that the server has refused."""


class _RunToken(msgspec.Struct):
    token: str
    expiry: str = msgspec.field(default="", name="expiryTimeUtc")


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = 0.0


class _Claims(msgspec.Struct):
    exp: float = 0.0


class Keeper:
    """Keep the token of one tracker."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._token: Token | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the token is to be renewed before the next request."""
        return self._token is not None and self._token.is_ending

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


def job_token(
    environ: Mapping[str, str], host: str, path: str | None, transport: Transport
) -> Source | None:
    """
    Return the source of a job's token: the variable's first, then those that the history gives.

    `path` is the run's in the history; None where the token cannot be renewed. Returns None where
    there is no such variable.
    """
    first = (
        environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
        or environ.get("AZUREML_RUN_TOKEN", "").strip()
    )
    if not first:
        return None

    async def source(old: Token | None) -> Token:
        if old is None:
            return Token(first, _end_of(first))
        if path is None:
            raise AccessError(f"the AzureML token is refused or over, and of no run; {_HINT}")
        headers = {"Authorization": f"Bearer {old.value}"}
        client = Client(host, headers=headers, transport=transport, hint=_HINT)
        try:
            answer = msgspec.convert(await client.get(f"{path}/token"), _RunToken)
        except (RejectedError, msgspec.ValidationError) as error:
            raise AccessError(f"the AzureML token cannot be renewed: {error}") from error
        finally:
            await client.close()
        return Token(answer.token, _unix(answer.expiry) or _end_of(answer.token))

    return source


def identity_token(environ: Mapping[str, str], transport: Transport) -> Source:
    """Return the source of an identity's tokens: a service principal's, or azure-identity's."""
    names = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    tenant, user, secret = (environ.get(name, "").strip() for name in names)
    if not (tenant and user and secret):
        return _from_azure_identity
    authority = environ.get("AZURE_AUTHORITY_HOST", "").strip().rstrip("/") or _AUTHORITY
    form = urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": user,
            "client_secret": secret,
            "scope": _SCOPE,
        }
    ).encode()

    async def source(old: Token | None) -> Token:
        client = Client(authority, transport=transport, hint=_HINT)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            reply = await client.request(
                "POST", f"{tenant}/oauth2/v2.0/token", content=form, headers=headers
            )
            granted = msgspec.convert(reply.json(), _Granted)
        except (RejectedError, msgspec.ValidationError) as error:
            raise AccessError(f"Azure gives no token: {error}; {_HINT}") from error
        finally:
            await client.close()
        return Token(granted.access_token, time.time() + granted.expires_in)

    return source


async def _from_azure_identity(old: Token | None) -> Token:
    """Ask the optional package, which knows command lines, managed identities and so on."""
    return await anyio.to_thread.run_sync(_ask_azure_identity, abandon_on_cancel=True)


def _ask_azure_identity() -> Token:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise AccessError(f"AzureML needs a token: {_HINT}") from None
    try:
        found: Any = DefaultAzureCredential().get_token(_SCOPE)
    except Exception as error:
        raise AccessError(f"azure-identity gives no token: {type(error).__name__}") from error
    return Token(found.token, float(found.expires_on))


def _end_of(token: str) -> float:
    """Return when a JSON web token ends (its `exp`), or 0."""
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        decoded = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(decoded, type=_Claims).exp
    except (binascii.Error, msgspec.DecodeError):
        return 0.0


def _unix(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
