"""
A W&B tracker's settings: where each is read from, and which values are refused.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from asynccb._ground.environment import switch
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.addresses import quoted, server_parts
from asynccb.trackers.shared.given import Given
from asynccb.trackers.wandb.access import DEFAULT_BASE, app_url
from asynccb.trackers.wandb.config_files import setting

logger = logging.getLogger("asynccb")

DEFAULT_PROJECT: Final = "huggingface"
_MODES: Final = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_RESUME: Final = ("allow", "must", "never")
_LOG_MODEL: Final = ("end", "checkpoint", "false")
_WATCH: Final = ("gradients", "parameters", "all", "false")
_CONSOLE_OFF: Final = ("", "off")
_CONSOLE_ON: Final = ("auto", "redirect", "wrap", "wrap_emu", "wrap_raw")
_ODD: Final = re.compile(r"[/\\#?%:]")
_SAMPLING: Final = 15.0
_NO_SAMPLING: Final = ("WANDB__DISABLE_STATS", "WANDB_X_DISABLE_STATS")
_TAG: Final = 64


@dataclass(frozen=True)
class WandbSettings:
    """A W&B tracker's settings as plain data; `WandbCallback` documents them."""

    base_url: str
    app_url: str
    project: str
    entity: str | None
    name: str | None
    usual_name: str | None
    """The name in `WANDB_NAME`, for a run that the training arguments do not name."""
    run_id: str | None
    resume: str | None
    mode: str
    tags: list[str]
    notes: str | None
    group: str | None
    job_type: str | None
    log_model: str
    watch: str
    console: bool
    system_metrics: float
    """Seconds between two samples; 0 for none."""

    def __post_init__(self) -> None:
        if self.resume == "must" and self.run_id is None:
            raise ConfigurationError(
                "a W&B run that must be resumed needs its id: give it as run_id= or WANDB_RUN_ID"
            )


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> WandbSettings:
    """Return the settings: the arguments, and for each that is None, variable or settings file."""
    given = Given(arguments, environ)
    directory = given.text("directory", "WANDB_DIR")

    def saved(name: str, variable: str) -> str | None:
        return given.text(name, variable) or setting(name, environ, directory)

    base_url = _base_url(saved("base_url", "WANDB_BASE_URL") or DEFAULT_BASE)
    return WandbSettings(
        base_url=base_url,
        app_url=app_url(base_url, environ),
        project=_project(saved("project", "WANDB_PROJECT") or DEFAULT_PROJECT),
        entity=saved("entity", "WANDB_ENTITY"),
        name=given.text("name"),
        usual_name=given.variable("WANDB_NAME"),
        run_id=_run_id(given.text("run_id", "WANDB_RUN_ID")),
        resume=_resume(given.text("resume", "WANDB_RESUME")),
        mode=_mode(given),
        tags=given.tags("W&B", _TAG, listed=environ.get("WANDB_TAGS", "").split(","), strip=True),
        notes=given.text("notes", "WANDB_NOTES"),
        group=given.text("group", "WANDB_RUN_GROUP"),
        job_type=given.text("job_type", "WANDB_JOB_TYPE"),
        log_model=_choice("log_model", "WANDB_LOG_MODEL", _LOG_MODEL, given),
        watch=_choice("watch", "WANDB_WATCH", _WATCH, given),
        console=_console(given["console"], environ.get("WANDB_CONSOLE", "")),
        system_metrics=_sampling(given),
    )


def _base_url(address: str) -> str:
    parts = server_parts(address)
    if parts is None:
        raise ConfigurationError(
            f"the W&B server's address{quoted(address)} is none: it takes http(s)://host:port, as "
            f"in {DEFAULT_BASE}"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the W&B server's address comes with a user or password, which is not kept: set "
            "WANDB_API_KEY instead"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _project(name: str) -> str:
    if len(name) > 128 or _ODD.search(name):
        raise ConfigurationError(
            f"project (or WANDB_PROJECT) is {name!r}; W&B takes at most 128 characters, and none "
            "of / \\ # ? % :"
        )
    return name


def _run_id(value: str | None) -> str | None:
    if value is not None and (len(value) > 128 or _ODD.search(value) or value != value.strip()):
        raise ConfigurationError(
            f"run_id (or WANDB_RUN_ID) is {value!r}; W&B takes at most 128 characters, and none "
            "of / \\ # ? % :"
        )
    return value


def _resume(value: str | None) -> str | None:
    if value is not None and value not in _RESUME:
        raise ConfigurationError(
            f"resume (or WANDB_RESUME) is {value!r}; it takes one of {', '.join(_RESUME)}, with "
            "the run's id as run_id= or WANDB_RUN_ID"
        )
    return value


def _mode(given: Given) -> str:
    if given["mode"] is None and switch(given.environ, "WANDB_DISABLED"):
        return "disabled"
    return given.choice("mode", "WANDB_MODE", _MODES, "online", "online, offline or disabled")


def _choice(name: str, variable: str, choices: tuple[str, ...], given: Given) -> str:
    """Return one of the choices; an unknown word in a variable logs a warning and means false."""
    value = given[name]
    if value is False:
        return "false"
    if value is None:
        value = given.variable(variable) or "false"
        if value not in choices:
            logger.warning(
                "%s is %r; it takes one of %s, and counts as false", *(variable, value, choices)
            )
            return "false"
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; it takes one of {', '.join(choices)}")
    return str(value)


def _console(given: object, variable: str) -> bool:
    if given is None:
        value = variable.strip().lower()
        if value not in (*_CONSOLE_OFF, *_CONSOLE_ON):
            raise ConfigurationError(
                f"WANDB_CONSOLE is {variable!r}; it takes one of {', '.join(_CONSOLE_ON)}, or off"
            )
        return value in _CONSOLE_ON
    if not isinstance(given, bool):
        raise ConfigurationError(f"console is {given!r}; it takes True or False")
    return given


def _sampling(given: Given) -> float:
    if given["system_metrics"] is None and any(switch(given.environ, off) for off in _NO_SAMPLING):
        return 0.0
    variable = "WANDB_X_STATS_SAMPLING_INTERVAL"
    return given.seconds("system_metrics", variable, usual=_SAMPLING, least=1)
