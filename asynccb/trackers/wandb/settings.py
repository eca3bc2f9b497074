"""
Where a W&B tracker's settings come from, and which are refused.

Promises: what cannot work is refused where it was given; what is kept holds no credential.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asynccb._ground.environment import switch, text_setting
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.addresses import quoted, server_parts
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


@dataclass(frozen=True)
class WandbSettings:
    """Hold a W&B tracker's settings as plain data; `WandbCallback` says what they mean."""

    base_url: str
    app_url: str
    project: str
    entity: str | None
    name: str | None
    usual_name: str | None
    """That of `WANDB_NAME`, for a run that the training arguments do not name."""
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


def resolve(given: Mapping[str, Any], environ: Mapping[str, str]) -> WandbSettings:
    """Return the settings: what was given, and for what is None, variable or settings file."""
    directory = text_setting("directory", given["directory"], "WANDB_DIR", environ)

    def text(name: str, variable: str, saved: str | None = None) -> str | None:
        found = text_setting(name, given[name], variable, environ)
        return found or (setting(saved, environ, directory) if saved else None)

    base_url = _base_url(text("base_url", "WANDB_BASE_URL", "base_url") or DEFAULT_BASE)
    return WandbSettings(
        base_url=base_url,
        app_url=app_url(base_url, environ),
        project=_project(text("project", "WANDB_PROJECT", "project") or DEFAULT_PROJECT),
        entity=text("entity", "WANDB_ENTITY", "entity"),
        name=text_setting("name", given["name"], "", {}),
        usual_name=environ.get("WANDB_NAME", "").strip() or None,
        run_id=_run_id(text("run_id", "WANDB_RUN_ID")),
        resume=_resume(text("resume", "WANDB_RESUME")),
        mode=_mode(given["mode"], environ),
        tags=_tags(given["tags"], environ.get("WANDB_TAGS", "")),
        notes=text("notes", "WANDB_NOTES"),
        group=text("group", "WANDB_RUN_GROUP"),
        job_type=text("job_type", "WANDB_JOB_TYPE"),
        log_model=_choice("log_model", given, "WANDB_LOG_MODEL", environ, _LOG_MODEL),
        watch=_choice("watch", given, "WANDB_WATCH", environ, _WATCH),
        console=_console(given["console"], environ.get("WANDB_CONSOLE", "")),
        system_metrics=_sampling(given["system_metrics"], environ),
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


def _mode(given: object, environ: Mapping[str, str]) -> str:
    if given is None and switch(environ, "WANDB_DISABLED"):
        return "disabled"
    mode = given if given is not None else environ.get("WANDB_MODE", "").strip() or "online"
    if not (isinstance(mode, str) and mode in _MODES):
        raise ConfigurationError(
            f"mode (or WANDB_MODE) is {mode!r}; it takes online, offline or disabled"
        )
    return _MODES[mode]


def _tags(given: object, variable: str) -> list[str]:
    tags = variable.split(",") if given is None else given
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ConfigurationError(f"tags are {tags!r}; they take a list of strings")
    found = [tag.strip() if isinstance(tag, str) else tag for tag in tags]
    if given is None:
        found = [tag for tag in found if tag]
    for tag in found:
        if not (isinstance(tag, str) and 0 < len(tag) <= 64):
            raise ConfigurationError(f"a W&B tag is {tag!r}; it takes 1 to 64 characters")
    return list(dict.fromkeys(found))


def _choice(
    name: str,
    given: Mapping[str, Any],
    variable: str,
    environ: Mapping[str, str],
    choices: tuple[str, ...],
) -> str:
    """Return one of the choices; an odd one in a variable is said and off, as in transformers."""
    value = given[name]
    if value is False:
        return "false"
    if value is None:
        value = environ.get(variable, "").strip() or "false"
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


def _sampling(given: object, environ: Mapping[str, str]) -> float:
    if given is None:
        if switch(environ, "WANDB__DISABLE_STATS") or switch(environ, "WANDB_X_DISABLE_STATS"):
            return 0.0
        variable = environ.get("WANDB_X_STATS_SAMPLING_INTERVAL", "").strip()
        try:
            given = float(variable) if variable else _SAMPLING
        except ValueError:
            given = variable
    if given is False:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not 1 <= given < 1e6:
        raise ConfigurationError(
            f"system_metrics (or WANDB_X_STATS_SAMPLING_INTERVAL) is {given!r}; it takes seconds, "
            "at least 1, or False"
        )
    return float(given)
