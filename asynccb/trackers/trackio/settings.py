"""
A Trackio tracker's settings, and the destination to which they send a run.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs

from asynccb._ground.environment import (
    Uploaded,
    expanded,
    folder_setting,
    upload_setting,
)
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.addresses import kept, quoted, server_parts, split
from asynccb.trackers.shared.given import Given

Resume: TypeAlias = Literal["allow", "never"]

_SPACE: Final = re.compile(r"([\w.\-]+/)?[\w.\-]+", re.ASCII)
_HUB: Final = "https://huggingface.co"
_PROJECT: Final = "huggingface"
_DIRECTORIES: Final = {
    "TRACKIO_DIR": "",
    "HF_HOME": "trackio",
    "XDG_CACHE_HOME": "huggingface/trackio",
}
"""Variables with a folder, and the path of ours below it; the first variable that is set wins."""
_USUAL_DIRECTORY: Final = "~/.cache/huggingface/trackio"
_SHORTEST_INTERVAL: Final = 1.0


@dataclass(frozen=True)
class Space:
    """A Space of Hugging Face: `namespace/name`, or `name` in the user's namespace."""

    name: str


@dataclass(frozen=True)
class Server:
    """A Trackio server, by its address without credentials."""

    url: str


@dataclass(frozen=True)
class Inbox:
    """The folder that a local `trackio show` reads."""

    directory: str


Destination: TypeAlias = Space | Server | Inbox


@dataclass(frozen=True)
class TrackioSettings:
    """A Trackio tracker's settings as plain data; `TrackioCallback` documents them."""

    project: str | None
    other_project: str | None
    """The project in the variable, for training arguments whose project is the default one."""
    run_name: str | None
    group: str | None
    space_id: str | None
    """The given Space; the training arguments come next, then `other_space_id`."""
    other_space_id: str | None
    server_url: str | None
    only_server: bool
    """Whether the server was given as an argument; it then precedes all Spaces but a given one."""
    bucket_id: str | None
    other_bucket_id: str | None
    private: bool | None
    directory: str
    hub: str
    resume: Resume
    log_model: Uploaded
    log_gpu: bool
    gpu_interval: float

    @property
    def place(self) -> list[str | None]:
        """The settings that determine a run's destination, and which run it is."""
        places = [self.space_id, self.other_space_id, self.server_url, self.directory]
        return [*places, self.project, self.other_project, self.run_name]

    def destination(self, args: Any) -> Destination:
        """
        Return the destination: a Space wins over a server, and both over the local folder.

        A given server wins over a Space of the training arguments or of the variable.
        """
        space = self.space_id
        if space is None and not self.only_server:
            space = checked_space(getattr(args, "trackio_space_id", None)) or self.other_space_id
        if space is not None:
            return Space(space)
        return Inbox(self.directory) if self.server_url is None else Server(self.server_url)

    def bucket_of(self, args: Any) -> str | None:
        """Return the bucket for a new Space, or None for a new bucket."""
        named = _checked_bucket(getattr(args, "trackio_bucket_id", None))
        return self.bucket_id or named or self.other_bucket_id

    def project_of(self, args: Any) -> str:
        """Return the project: the given one, that of the training arguments, or the variable's."""
        named = getattr(args, "project", None)
        if self.project is None and named and named != _PROJECT:
            return str(named)
        return self.project or self.other_project or _PROJECT


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> TrackioSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    given = Given(arguments, environ)
    server = _server_url(given["server_url"], given.variable("TRACKIO_SERVER_URL"))
    return TrackioSettings(
        project=given.text("project"),
        other_project=given.variable("TRACKIO_PROJECT"),
        run_name=given.text("name"),
        group=given.text("group"),
        space_id=checked_space(given["space_id"]),
        server_url=server,
        other_space_id=checked_space(given.variable("TRACKIO_SPACE_ID")),
        only_server=given["server_url"] is not None,
        bucket_id=_checked_bucket(given["bucket_id"]),
        other_bucket_id=_checked_bucket(given.variable("TRACKIO_BUCKET_ID")),
        private=None if given["private"] is None else given.switch("private"),
        directory=_directory(environ),
        hub=_hub(environ),
        resume=_resume(given["resume"]),
        log_model=upload_setting("log_model", given["log_model"], "TRACKIO_LOG_MODEL", environ),
        log_gpu=given["auto_log_gpu"] is None or given.switch("auto_log_gpu"),
        gpu_interval=_interval(given["gpu_log_interval"]),
    )


def _hub(environ: Mapping[str, str]) -> str:
    address = environ.get("HF_ENDPOINT", "").strip() or _HUB
    if server_parts(address) is None:
        raise ConfigurationError(
            f"HF_ENDPOINT{quoted(address)} is no address; it takes one such as {_HUB}"
        )
    return kept(address)


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether a variable names a server, a Space or a folder."""
    names = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_DIR")
    return any(environ.get(name, "").strip() for name in names)


def checked_space(value: object) -> str | None:
    """Return a Space's name; raise `ConfigurationError` unless it is valid."""
    if value is None or (isinstance(value, str) and _SPACE.fullmatch(value)):
        return value
    raise ConfigurationError(
        f"the Trackio Space is {value!r}; it takes 'namespace/name', or 'name' in your own "
        "namespace (as space_id=, trackio_space_id of the training arguments, or TRACKIO_SPACE_ID)"
    )


def _checked_bucket(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _SPACE.fullmatch(value) and "/" in value):
        return value
    raise ConfigurationError(
        f"the bucket of the Trackio Space is {value!r}; it takes 'namespace/name' (as bucket_id=, "
        "trackio_bucket_id of the training arguments, or TRACKIO_BUCKET_ID)"
    )


def write_token(url: str, environ: Mapping[str, str]) -> str:
    """Return the token for a server, from the variable's address or `TRACKIO_WRITE_TOKEN`."""
    variable = environ.get("TRACKIO_SERVER_URL", "").strip()
    parts = split(variable)
    own = [] if parts is None else parse_qs(parts.query).get("write_token", [])
    if own and kept(variable) == url:
        return own[0]
    return environ.get("TRACKIO_WRITE_TOKEN", "").strip()


def hub_token(environ: Mapping[str, str]) -> str:
    """Return the token of Hugging Face: the variable's, or the token that a login has saved."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environ.get(name, "").strip():
            return token
    named = environ.get("HF_TOKEN_PATH", "").strip()
    saved = expanded(named) if named else _hub_home(environ) / "token"
    try:
        return saved.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _server_url(given: object, variable: str | None) -> str | None:
    url = given if given is not None else variable
    if url is None:
        return None
    address = str(url)
    parts = server_parts(address)
    if parts is None:
        raise ConfigurationError(
            f"the Trackio server's address{quoted(address)} is none: it takes one such as "
            "http://127.0.0.1:7860 (as server_url= or TRACKIO_SERVER_URL)"
        )
    if given is not None and ("@" in parts.netloc or "write_token" in parts.query):
        raise ConfigurationError(
            f"server_url{quoted(address)} comes with a credential, which is not kept: set "
            "TRACKIO_WRITE_TOKEN instead"
        )
    return kept(address)


def _directory(environ: Mapping[str, str]) -> str:
    for variable, below in _DIRECTORIES.items():
        if given := environ.get(variable, "").strip():
            return str(Path(folder_setting(variable, given), below))
    return folder_setting("TRACKIO_DIR", _USUAL_DIRECTORY)


def _hub_home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HF_HOME", "").strip()
    if not home:
        cache = environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
        home = os.path.join(cache, "huggingface")
    return expanded(home)


def _resume(value: object) -> Resume:
    if value == "allow" or value == "never":
        return value
    raise ConfigurationError(f"resume is {value!r}; it takes 'allow' or 'never'")


def _interval(value: object) -> float:
    if isinstance(value, int | float) and value >= _SHORTEST_INTERVAL:
        return float(value)
    raise ConfigurationError(
        f"gpu_log_interval is {value!r}; it takes seconds, from {_SHORTEST_INTERVAL:g} on"
    )
