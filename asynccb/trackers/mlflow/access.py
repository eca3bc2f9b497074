"""
Connect to an MLflow server with MLflow's variables for credentials, certificates and time-outs.

Promises: credentials are looked up when the connection is made and kept only in the client; no
message quotes them. Credentials that the environment does not set are read from
`~/.mlflow/credentials`, as in MLflow.
"""

from __future__ import annotations

import base64
import configparser
import math
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from asynccb._ground.environment import expanded, switch
from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from asynccb.trackers.shared.addresses import kept, split

_HINT: Final = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, "
    "and check that the address is an MLflow server's"
)

_CREDENTIALS: Final = "~/.mlflow/credentials"


def open_client(uri: str, environ: Mapping[str, str]) -> Client:
    """Return a client of the server, with the credentials from the environment and the files."""
    return Client(
        uri, headers=_authorization(uri, environ), transport=transport(environ), hint=_HINT
    )


def transport(environ: Mapping[str, str]) -> Transport:
    """
    Return the transport that MLflow's variables configure.

    Raises `ConfigurationError` for an invalid time-out and a missing file.
    """
    return Transport(
        timeout=_timeout(environ),
        verify=not switch(environ, "MLFLOW_TRACKING_INSECURE_TLS"),
        authority=_existing(environ, "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        certificate=_existing(environ, "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    )


def _timeout(environ: Mapping[str, str]) -> float:
    value = environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "").strip()
    if not value:
        return Transport.timeout
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(
            f"MLFLOW_HTTP_REQUEST_TIMEOUT is {value!r}; set it to a number of seconds above 0"
        )
    return seconds


def _existing(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(variable, "").strip()
    if path and not os.path.exists(path):
        raise ConfigurationError(f"{variable} is {path!r}, but this file does not exist")
    return path or None


def _authorization(uri: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header; try user and password first, then a user in the URI, then the token."""
    saved = _saved_credentials()
    user = environ.get("MLFLOW_TRACKING_USERNAME") or saved.get("mlflow_tracking_username")
    password = environ.get("MLFLOW_TRACKING_PASSWORD") or saved.get("mlflow_tracking_password")
    if user and password:
        return basic(user, password)
    if own := _userinfo(uri, environ.get("MLFLOW_TRACKING_URI", "").strip()):
        return basic(*own)
    token = environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic authentication."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _userinfo(uri: str, variable: str) -> tuple[str, str] | None:
    """Return user and password of the variable's address, if it is the address of this server."""
    parts = split(variable)
    if parts is None or "@" not in parts.netloc or kept(variable) != uri:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def _saved_credentials() -> Mapping[str, str]:
    file = expanded(_CREDENTIALS)
    saved = configparser.RawConfigParser()
    try:
        saved.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        # The error's own message would quote a line of the file.
        raise AccessError(
            f"{_CREDENTIALS} cannot be read: it must have a section [mlflow] with "
            "mlflow_tracking_username and mlflow_tracking_password"
        ) from None
    except OSError as error:
        raise AccessError(f"{_CREDENTIALS} cannot be read: {error.strerror}") from None
    return dict(saved.items("mlflow")) if saved.has_section("mlflow") else {}
