"""
A DagsHub tracker's settings and credentials: from arguments, variables and saved tokens.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from asynccb._ground.environment import expanded
from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.trackers.mlflow import settings as mlflow
from asynccb.trackers.shared.addresses import kept, server_parts, split
from asynccb.trackers.shared.given import Given

_NAME: Final = re.compile(r"[\w.\-]+", re.ASCII)
_BRANCH: Final = re.compile(r"[\w.\-/]+", re.ASCII)
_TOKEN_LINE: Final = re.compile(r"^[\s-]*access_token:\s*['\"]?([^'\"\s]+)['\"]?\s*$")
_HOST_LINE: Final = re.compile(r"^(\S.*?):\s*$")


@dataclass(frozen=True)
class DagsHubSettings(mlflow.MLflowSettings):
    """A DagsHub tracker's settings as plain data; `DagsHubCallback` documents them."""

    host: str
    owner: str
    repo: str
    branch: str
    log_output: bool

    @property
    def repository(self) -> str:
        """Owner and name, as in the paths of the interface."""
        return f"{self.owner}/{self.repo}"


@dataclass(frozen=True)
class Credentials:
    """A token, or a user's name and password."""

    user: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return "<Credentials>"


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> DagsHubSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    given = Given(arguments, environ)
    host = _host(environ)
    owner, repo = _repository(given["repo_owner"], given["repo_name"], environ)
    address = f"{host}/{owner}/{repo}.mlflow"
    settings = mlflow.resolve({**arguments, "tracking_uri": address}, environ)
    return DagsHubSettings(
        **asdict(settings),
        host=host,
        owner=owner,
        repo=repo,
        branch=_matching(_BRANCH, "branch", given.text("branch", "BRANCH") or "main"),
        log_output=given.switch("log_output", "HF_DAGSHUB_LOG_ARTIFACTS"),
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether `MLFLOW_TRACKING_URI` names a repository."""
    return mlflow.is_dagshub(environ.get("MLFLOW_TRACKING_URI", "").strip(), environ)


def find_credentials(host: str, environ: Mapping[str, str]) -> Credentials:
    """
    Return the user and password, or the token alone; raise `AccessError` if there are none.

    The order is: DagsHub's token, its user and password, the saved token, MLflow's user and
    password, the user and password in MLflow's address.
    """
    if token := environ.get("DAGSHUB_USER_TOKEN", "").strip():
        return Credentials(secret=token)
    for prefix in ("DAGSHUB_", "MLFLOW_TRACKING_"):
        if prefix != "DAGSHUB_" and (token := _saved_token(host, environ)):
            return Credentials(secret=token)
        user, password = environ.get(f"{prefix}USERNAME"), environ.get(f"{prefix}PASSWORD")
        if user and password:
            return Credentials(user, password)
    address = environ.get("MLFLOW_TRACKING_URI", "").strip()
    parts = split(address)
    if parts and parts.username and parts.password and mlflow.is_dagshub(address, environ):
        return Credentials(unquote(parts.username), unquote(parts.password))
    raise AccessError(
        "DagsHub needs a token: set DAGSHUB_USER_TOKEN to one of "
        f"{host}/user/settings/tokens, or log in with `dagshub login`"
    )


def _saved_token(host: str, environ: Mapping[str, str]) -> str:
    """Return the first token that `dagshub login` has saved for the host."""
    file = environ.get("DAGSHUB_CLIENT_TOKENS_CACHE", "").strip()
    path = expanded(file) if file else _cache(environ) / "dagshub" / "tokens"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    section = ""
    for line in lines:  # the client writes only a small part of YAML
        if found := _HOST_LINE.match(line):
            section = found[1].strip("'\"").rstrip("/")
        elif section == host and (token := _TOKEN_LINE.match(line)):
            return token[1]
    return ""


def _cache(environ: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return expanded("~/Library/Caches")
    return expanded(environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache")


def _host(environ: Mapping[str, str]) -> str:
    host = environ.get("DAGSHUB_CLIENT_HOST", "").strip() or mlflow.DAGSHUB
    parts = server_parts(host)
    if parts is None or "@" in parts.netloc:
        raise ConfigurationError(
            f"DAGSHUB_CLIENT_HOST is no address such as {mlflow.DAGSHUB}, without a user"
        )
    return kept(host)


def _repository(owner: object, repo: object, environ: Mapping[str, str]) -> tuple[str, str]:
    address = environ.get("MLFLOW_TRACKING_URI", "").strip()
    if owner is None and repo is None and mlflow.is_dagshub(address, environ):
        parts = urlsplit(address).path.strip("/").removesuffix(".mlflow").split("/")
        if len(parts) == 2:
            owner, repo = parts
    if owner is None or repo is None:
        raise ConfigurationError(
            "DagsHub needs a repository: give repo_owner and repo_name, or set MLFLOW_TRACKING_URI "
            f"to its address, such as {mlflow.DAGSHUB}/OWNER/NAME.mlflow"
        )
    return _matching(_NAME, "repo_owner", owner), _matching(_NAME, "repo_name", repo)


def _matching(pattern: re.Pattern[str], name: str, value: object) -> str:
    if isinstance(value, str) and pattern.fullmatch(value) and ".." not in value:
        return value
    raise ConfigurationError(
        f"{name} is {value!r}; it takes letters, digits, and . _ -" + ("/" * (name == "branch"))
    )
