"""
A SwanLab tracker's settings: where each is read from, and which values are refused.

Promises: a setting that is invalid by the rules of `swanlab` 0.10 raises in the constructor; the
stored settings contain no credential.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from asynccb._ground.environment import (
    Uploaded,
    switch,
    upload_setting,
)
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.addresses import quoted, server_parts
from asynccb.trackers.shared.given import Given
from asynccb.trackers.swanlab.access import saved_login

Mode: TypeAlias = Literal["cloud", "local", "disabled"]
Resume: TypeAlias = Literal["allow", "must", "never"]

API_HOST: Final = "https://api.swanlab.cn"
WEB_HOST: Final = "https://swanlab.cn"

_MODES: Final[dict[str, Mode]] = {
    "cloud": "cloud",
    "online": "cloud",
    "local": "local",
    "offline": "local",
    "disabled": "disabled",
}
"""The vendor's `local` and `offline` write the same file; only `local` starts a dashboard."""
_TAKEN_MODES: Final = "cloud, local, offline or disabled"
_RESUME: Final[dict[str, Resume]] = {
    **dict.fromkeys(("allow", "true", "yes", "1"), "allow"),
    **dict.fromkeys(("never", "false", "no", "0"), "never"),
    "must": "must",
}
_PROJECT: Final = re.compile(r"[0-9a-zA-Z_\-+.]{1,100}", re.ASCII)
_ODD_IN_PROJECT: Final = re.compile(r"[^0-9a-zA-Z_\-+.]", re.ASCII)
_WORKSPACE: Final = re.compile(r"[0-9a-zA-Z\-_]{1,25}", re.ASCII)
_RUN_ID: Final = re.compile(r'[^<>:"/\\|?*#%\x00-\x1f\x7f]{1,512}')
_NEWER: Final = {
    "SWANLAB_PROJ_NAME": "SWANLAB_PROJECT_NAME",
    "SWANLAB_WORKSPACE": "SWANLAB_PROJECT_WORKSPACE",
    "SWANLAB_PUBLIC": "SWANLAB_PROJECT_PUBLIC",
    "SWANLAB_EXP_NAME": "SWANLAB_EXPERIMENT_NAME",
    "SWANLAB_DESCRIPTION": "SWANLAB_EXPERIMENT_DESCRIPTION",
    "SWANLAB_TAGS": "SWANLAB_EXPERIMENT_TAGS",
    "SWANLAB_GROUP": "SWANLAB_EXPERIMENT_GROUP",
    "SWANLAB_JOB_TYPE": "SWANLAB_EXPERIMENT_JOB_TYPE",
}
"""Names of the variables since `swanlab` 0.8, by their earlier names; `swanlab` reads both."""
_CONSOLE: Final = {"": False, "none": False, "all": True, "stdout": True, "stderr": True}
_SAMPLING: Final = 10.0
_SHORTEST: Final = 5
_TAGS: Final = 30
_NAME: Final = 512
_DESCRIPTION: Final = 1024


@dataclass(frozen=True)
class SwanLabSettings:
    """A SwanLab tracker's settings as plain data; `SwanLabCallback` documents them."""

    mode: Mode
    api_host: str
    web_host: str
    project: str
    workspace: str | None
    public: bool
    name: str | None
    usual_name: str | None
    """The name in `SWANLAB_EXP_NAME`, for a run that the training arguments do not name."""
    description: str | None
    tags: list[str]
    group: str | None
    job_type: str | None
    run_id: str | None
    resume: Resume
    log_dir: str
    log_model: Uploaded
    console: bool
    system_metrics: float
    """Seconds between two samples; 0 for none."""

    @property
    def place(self) -> list[str | None]:
        """The settings that determine a run's destination, and which run it is."""
        if self.mode == "local":
            return [self.mode, self.log_dir, self.project, self.run_id]
        return [self.mode, self.api_host, self.workspace, self.project, self.run_id]


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> SwanLabSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    environ = {**environ, **{o: environ[n] for o, n in _NEWER.items() if environ.get(n)}}
    given = Given(arguments, environ)

    def text(name: str, variable: str, longest: int = _NAME) -> str | None:
        found = given.text(name, variable)
        if found is not None and len(found) > longest:
            raise ConfigurationError(
                f"{name} (or {variable}) has {len(found)} characters; SwanLab takes {longest}"
            )
        return found

    api_host, web_host = _hosts(given)
    run_id = _matching("run_id", text("run_id", "SWANLAB_RUN_ID"), "SWANLAB_RUN_ID", _RUN_ID)
    return SwanLabSettings(
        mode=given.choice("mode", "SWANLAB_MODE", _MODES, "cloud", _TAKEN_MODES),
        api_host=api_host,
        web_host=web_host,
        project=_project(given),
        workspace=_matching(
            "workspace", text("workspace", "SWANLAB_WORKSPACE"), "SWANLAB_WORKSPACE", _WORKSPACE
        ),
        public=given.switch("public", "SWANLAB_PUBLIC"),
        name=given.text("name"),
        usual_name=environ.get("SWANLAB_EXP_NAME", "").strip()[:_NAME] or None,
        description=text("description", "SWANLAB_DESCRIPTION", _DESCRIPTION),
        tags=given.tags(
            "SwanLab", _NAME, _TAGS, listed=_listed(environ.get("SWANLAB_TAGS", "")), strip=True
        ),
        group=text("group", "SWANLAB_GROUP"),
        job_type=text("job_type", "SWANLAB_JOB_TYPE"),
        run_id=run_id,
        resume=_resume(given, run_id),
        log_dir=_log_dir(given["log_dir"], environ),
        log_model=upload_setting("log_model", given["log_model"], "SWANLAB_LOG_MODEL", environ),
        console=_console(given),
        system_metrics=_sampling(given),
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether there is a key, or a mode that needs none, and the mode is not disabled."""
    mode = environ.get("SWANLAB_MODE", "").strip()
    if mode == "disabled":
        return False
    if _MODES.get(mode) == "local" or environ.get("SWANLAB_API_KEY", "").strip():
        return True
    return saved_login(environ) is not None


def _hosts(given: Given) -> tuple[str, str]:
    """Return both addresses; if neither is given, those of the last `swanlab login`."""
    api = given.text("api_host", "SWANLAB_API_HOST")
    web = given.text("web_host", "SWANLAB_WEB_HOST")
    if api is None and given.variable("SWANLAB_API_KEY") is None:
        login = saved_login(given.environ)
        if login is not None:
            api, web = login.api_host, web or login.web_host
    api_host = _host("api_host", "SWANLAB_API_HOST", api or API_HOST)
    if web is not None:
        return api_host, _host("web_host", "SWANLAB_WEB_HOST", web)
    return api_host, WEB_HOST if api_host == API_HOST else api_host


def _host(name: str, variable: str, address: str) -> str:
    """Return scheme, host and port of an address; the vendor drops the rest, too."""
    whole = address.strip() if "://" in address else f"https://{address.strip()}"
    parts = server_parts(whole)
    if parts is None or parts.hostname is None:
        raise ConfigurationError(
            f"{name} (or {variable}){quoted(address)} is no address; it takes http(s)://host:port, "
            f"as in {API_HOST}"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{name} (or {variable}) comes with a user or password, which is not kept: set "
            "SWANLAB_API_KEY instead"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port is None else f":{parts.port}")


def _project(given: Given) -> str:
    named = given.text("project", "SWANLAB_PROJECT") or given.variable("SWANLAB_PROJ_NAME")
    if named is None:  # like the vendor, who refuses a folder with an odd name
        return _ODD_IN_PROJECT.sub("_", Path.cwd().name)[:100] or "asynccb"
    return _matching("project", named, "SWANLAB_PROJECT", _PROJECT) or named


def _matching(name: str, value: str | None, variable: str, pattern: re.Pattern[str]) -> str | None:
    if value is None or pattern.fullmatch(value):
        return value
    raise ConfigurationError(
        f"{name} (or {variable}) is {value!r}; SwanLab takes what matches {pattern.pattern}"
    )


def _resume(given: Given, run_id: str | None) -> Resume:
    value = given["resume"] if given["resume"] is not None else given.variable("SWANLAB_RESUME")
    if value is None:
        return "allow"
    resume = _RESUME.get(str(value).lower()) if isinstance(value, str | bool) else None
    if resume is None:
        raise ConfigurationError(
            f"resume (or SWANLAB_RESUME) is {value!r}; it takes must, allow or never"
        )
    if resume == "must" and run_id is None:
        raise ConfigurationError(
            "a SwanLab run that must be resumed needs its id: give it as run_id= or SWANLAB_RUN_ID"
        )
    if resume == "never" and run_id is not None:
        raise ConfigurationError(
            f"resume is 'never' and run_id (or SWANLAB_RUN_ID) names the run {run_id!r}: leave out "
            "the id for a new run, or give resume='allow'"
        )
    return resume


def _listed(variable: str) -> list[Any]:
    """Return a variable's items, which are a JSON array or separated by commas."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(variable), list):
            return found
    return variable.split(",")


def _log_dir(given: object, environ: Mapping[str, str]) -> str:
    if given is None:
        given = environ.get("SWANLAB_LOG_DIR", "").strip() or "swanlog"
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ConfigurationError(f"log_dir is {given!r}; it takes a directory's path")
    path = os.path.abspath(os.path.expanduser(os.fsdecode(given)))
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigurationError(f"log_dir (or SWANLAB_LOG_DIR) is {path!r}, which is no directory")
    return path


def _console(given: Given) -> bool:
    if given["console"] is not None:
        return given.switch("console")
    word = (given.variable("SWANLAB_TERMINAL_PROXY_TYPE") or "").lower()
    if word in _CONSOLE:
        return _CONSOLE[word]
    raise ConfigurationError(
        f"SWANLAB_TERMINAL_PROXY_TYPE is {word!r}; it takes all, stdout, stderr or none"
    )


def _sampling(given: Given) -> float:
    said = given["system_metrics"] is None and given.variable("SWANLAB_PROBE_MONITOR") is not None
    if said and not switch(given.environ, "SWANLAB_PROBE_MONITOR"):
        return 0.0
    variable = "SWANLAB_PROBE_MONITOR_INTERVAL"
    return given.seconds("system_metrics", variable, usual=_SAMPLING, least=_SHORTEST)
