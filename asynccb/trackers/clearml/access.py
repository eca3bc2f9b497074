"""
Connect to a ClearML server: look up credentials, and log in to receive tokens.

Promises: credentials are looked up when the connection is made, and kept in memory only; a token
is renewed when it is about to expire, and when the server refuses it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from asynccb._ground.environment import switch
from asynccb._ground.exceptions import AccessError, ConfigurationError, RejectedError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from asynccb.trackers.clearml.api import error_of
from asynccb.trackers.clearml.settings import (
    ClearMLSettings,
    conf_path,
    external_task,
    open_conf,
    variable,
)
from asynccb.trackers.shared.token import Keeper, Source, Token, end_of

_MARGIN: Final = 360.0
"""Seconds before a token expires, at which `clearml` renews it."""
_HINT: Final = (
    "check that CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or api.credentials in "
    "clearml.conf, are credentials of this server"
)

_NONE: Final = (
    "there are no ClearML credentials for {api}: set CLEARML_API_ACCESS_KEY and "
    "CLEARML_API_SECRET_KEY, or run `clearml-init`, which saves them in {conf}"
)


class _Granted(msgspec.Struct):
    token: str


class _Login(msgspec.Struct):
    data: _Granted


def is_configured(environ: Mapping[str, str]) -> bool:
    """Tell whether there are credentials, offline mode is set, or this process has an open task."""
    path = conf_path(environ)
    try:
        if switch(environ, "CLEARML_OFFLINE_MODE") or external_task(environ) is not None:
            return True
        return _authorization(path, environ) is not None
    except (AccessError, ConfigurationError):
        return True  # the tracker then reports the broken file


def open_keeper(settings: ClearMLSettings, environ: Mapping[str, str]) -> Keeper:
    """Return the keeper of the token; raise `AccessError` if there are no credentials."""
    path = Path(settings.conf)
    found = _authorization(path, environ)
    if found is None:
        raise AccessError(_NONE.format(api=settings.api, conf=path))
    return Keeper(_source(settings, found, variable("AUTH_TOKEN", environ)), _MARGIN)


def open_api(settings: ClearMLSettings, keeper: Keeper) -> Client:
    """Return a client of the API server, which has a token only after the first `renew`."""
    return Client(
        settings.api,
        transport=_transport(settings),
        hint=_HINT,
        statuses=_statuses(settings),
        renew=keeper.renewed,
    )


async def open_files(settings: ClearMLSettings, keeper: Keeper) -> Client:
    """Return a client of the file server, with a token."""
    return Client(
        settings.files,
        headers=await keeper.headers(),
        transport=_transport(settings),
        hint="check that api.files_server in clearml.conf, or CLEARML_FILES_HOST, is right",
        renew=keeper.renewed,
    )


def _transport(settings: ClearMLSettings) -> Transport:
    return Transport(verify=settings.verify)


def _statuses(settings: ClearMLSettings) -> Statuses:
    return Statuses(again=frozenset(settings.retried), error=error_of)


def _authorization(path: Path, environ: Mapping[str, str]) -> str | None:
    """Return the header for a login, with credentials from the environment, else from the file."""
    if token := variable("AUTH_TOKEN", environ):
        return f"Bearer {token}"
    access = variable("API_ACCESS_KEY", environ)
    secret = variable("API_SECRET_KEY", environ)
    if not (access and secret):
        conf = open_conf(path, environ)
        access = access or conf.text("api.credentials.access_key") or ""
        secret = secret or conf.text("api.credentials.secret_key") or ""
    if not (access and secret):
        return None
    return f"Basic {base64.b64encode(f'{access}:{secret}'.encode()).decode()}"


def _source(settings: ClearMLSettings, authorization: str, first: str) -> Source:
    """Return the source of tokens; a given `first` token is used first and requests the next."""

    async def source(old: Token | None) -> Token:
        if old is None and first:
            return Token(first, end_of(first))
        asking = f"Bearer {old.value}" if old is not None and first else authorization
        client = Client(
            settings.api,
            headers={"Authorization": asking},
            transport=_transport(settings),
            hint=_HINT,
            statuses=_statuses(settings),
        )
        try:
            answer: Any = await client.post("auth.login", {})
            granted = msgspec.convert(answer, _Login).data
        except RejectedError as error:
            raise AccessError(f"ClearML refuses to issue a token: {error}; {_HINT}") from error
        except msgspec.ValidationError:
            raise AccessError(
                f"{settings.api} issues no token and is not a ClearML API server: check that "
                "CLEARML_API_HOST, or api.api_server in clearml.conf, is the API server"
            ) from None
        finally:
            await client.close()
        return Token(granted.token, end_of(granted.token))

    return source
