"""
A Comet tracker's settings: where each is read from, and which values are refused.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from asynccb._ground.environment import folder_setting, switch, switch_setting
from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.trackers.comet_ml.access import host_in, server_root
from asynccb.trackers.comet_ml.config_files import setting
from asynccb.trackers.shared.given import Given

Mode: TypeAlias = Literal["get_or_create", "create", "get"]

_MODES: Final = ("get_or_create", "create", "get")
_KEY: Final = re.compile(r"[0-9A-Za-z]{32,50}")
_DIRECTORY: Final = ".cometml-runs"
_LONGEST_TAG: Final = 100


@dataclass(frozen=True)
class CometSettings:
    """A Comet tracker's settings as plain data; `CometCallback` documents them."""

    url: str | None
    """The server's root; None for the server that the key names, or the cloud."""
    project_name: str | None
    workspace: str | None
    experiment_key: str | None
    name: str | None
    usual_name: str | None
    """The name in the variable, for a run that the training arguments do not name."""
    tags: list[str]
    mode: Mode
    online: bool
    log_assets: bool
    offline_directory: str

    def __post_init__(self) -> None:
        if self.mode == "get" and self.experiment_key is None:
            raise ConfigurationError(
                "mode 'get' (or COMET_MODE) goes on with an experiment, and needs its key: give it "
                "as experiment_key= or COMET_EXPERIMENT_KEY"
            )

    @property
    def place(self) -> list[str | None]:
        """The settings that determine the experiment; an archive is later uploaded to it."""
        return [self.url, self.workspace, self.project_name, self.experiment_key]


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> CometSettings:
    """Return the settings: the arguments, and for each that is None, the result of `setting`."""
    given = Given(arguments, environ)

    def text(name: str) -> str | None:
        return given.text(name) or setting(name, environ)

    return CometSettings(
        url=_url(given.text("url"), environ),
        project_name=text("project_name"),
        workspace=text("workspace"),
        experiment_key=_experiment_key(text("experiment_key")),
        name=given.text("name"),
        usual_name=setting("experiment_name", environ),
        tags=given.tags("Comet", _LONGEST_TAG),
        mode=_mode(given["mode"], environ),
        online=_online(given["online"], environ),
        log_assets=given.switch("log_assets", "COMET_LOG_ASSETS"),
        offline_directory=folder_setting(
            "offline_directory (or COMET_OFFLINE_DIRECTORY)",
            text("offline_directory") or _DIRECTORY,
        ),
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether runs can be logged: there is a key, or runs go into archives."""
    try:
        return not _online(None, environ) or setting("api_key", environ) is not None
    except (AccessError, ConfigurationError):
        return True  # include the tracker, so that its constructor reports the broken settings


def _url(given: str | None, environ: Mapping[str, str]) -> str | None:
    address = given or setting("url_override", environ)
    if address is not None:
        return server_root(address)
    try:
        return host_in(setting("api_key", environ) or "")
    except AccessError:
        return (
            None  # the error is raised again when the key is used; there it does not end a training
        )


def _experiment_key(value: str | None) -> str | None:
    if value is not None and not _KEY.fullmatch(value):
        raise ConfigurationError(
            f"experiment_key (or COMET_EXPERIMENT_KEY) is {value!r}; it takes 32 to 50 letters and "
            "digits"
        )
    return value


def _mode(given: object, environ: Mapping[str, str]) -> Mode:
    value = given if given is not None else environ.get("COMET_MODE", "").strip()
    value = value or setting("start_mode", environ) or "get_or_create"
    for mode in _MODES:
        if isinstance(value, str) and value.lower() == mode:
            return mode
    raise ConfigurationError(
        f"mode (or COMET_MODE) is {value!r}; it takes one of {', '.join(_MODES)} (and "
        "COMET_START_ONLINE=0 keeps a run offline)"
    )


def _online(given: object, environ: Mapping[str, str]) -> bool:
    if given is not None:
        return switch_setting("online", given, "", {})
    value = setting("start_online", environ)
    return value is None or switch({"COMET_START_ONLINE": value}, "COMET_START_ONLINE")
