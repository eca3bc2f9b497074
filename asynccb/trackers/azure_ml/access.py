"""
Get tokens for an AzureML workspace: the job's own, which the service renews, or an identity's.

Promises: the same as `trackers/shared/token.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from asynccb.trackers.shared.token import Source, Token, end_of

MARGIN: Final = 95.0
"""Seconds before a token expires, at which the service's own client renews it."""
_AUTHORITY: Final = "https://login.microsoftonline.com"
_SCOPE: Final = "https://management.azure.com/.default"
_HINT: Final = (
    "set MLFLOW_TRACKING_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of an "
    "identity that may write to the workspace, or install azure-identity"
)


class _RunToken(msgspec.Struct):
    token: str
    expiry: str = msgspec.field(default="", name="expiryTimeUtc")


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = 0.0


def job_token(
    environ: Mapping[str, str], host: str, path: str | None, transport: Transport
) -> Source | None:
    """
    Return the source of a job's tokens: first the variable's token, then renewed ones.

    Tokens are renewed through the run history; `path` is the run's path there, or None if the token
    cannot be renewed. If the variable is not set, return None.
    """
    first = (
        environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
        or environ.get("AZUREML_RUN_TOKEN", "").strip()
    )
    if not first:
        return None

    async def source(old: Token | None) -> Token:
        if old is None:
            return Token(first, end_of(first))
        if path is None:
            raise AccessError(
                "the AzureML token has expired or was refused, and only a run's token can be "
                f"renewed; {_HINT}"
            )
        headers = {"Authorization": f"Bearer {old.value}"}
        client = Client(host, headers=headers, transport=transport, hint=_HINT)
        try:
            answer = msgspec.convert(await client.get(f"{path}/token"), _RunToken)
        except (RejectedError, msgspec.ValidationError) as error:
            raise AccessError(f"the AzureML token cannot be renewed: {error}") from error
        finally:
            await client.close()
        return Token(answer.token, _unix(answer.expiry) or end_of(answer.token))

    return source


def identity_token(environ: Mapping[str, str], transport: Transport) -> Source:
    """Return the source of an identity's tokens: a service principal, else azure-identity."""
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
            raise AccessError(f"Azure refuses to issue a token: {error}; {_HINT}") from error
        finally:
            await client.close()
        return Token(granted.access_token, time.time() + granted.expires_in)

    return source


async def _from_azure_identity(old: Token | None) -> Token:
    """Ask the optional package, which supports command lines, managed identities and so on."""
    return await anyio.to_thread.run_sync(_ask_azure_identity, abandon_on_cancel=True)


def _ask_azure_identity() -> Token:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise AccessError(f"AzureML needs a token: {_HINT}") from None
    try:
        found: Any = DefaultAzureCredential().get_token(_SCOPE)
    except Exception as error:
        raise AccessError(f"azure-identity returns no token: {type(error).__name__}") from error
    return Token(found.token, float(found.expires_on))


def _unix(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
