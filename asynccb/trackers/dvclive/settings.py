"""
A DVCLive tracker's settings: from arguments, a `Live`, the environment, or DVC's files.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urljoin

from asynccb._ground.environment import switch
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.dvclive.repository import (
    Repository,
    find_repository,
    studio_setting,
    studio_token,
    without_user,
)
from asynccb.trackers.shared.addresses import quoted, server_parts
from asynccb.trackers.shared.given import Given

logger = logging.getLogger("asynccb")

LogModel: TypeAlias = Literal["true", "all", "false"]

_STUDIO: Final = "https://studio.datachain.ai"
_ODD_IN_NAME: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{|^[.-]|\.$|\.lock$")
"""Text that Git refuses in a part of a reference, or that `dvc` takes for an option."""
_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})
_FALSE: Final = frozenset({"", "0", "OFF", "NO", "FALSE"})


@dataclass(frozen=True)
class DVCLiveSettings:
    """A DVCLive tracker's settings as plain data; `DVCLiveCallback` documents them."""

    enabled: bool
    dir: str
    """Absolute, like all paths here."""
    origin: str
    """Working directory of the training process."""
    resume: bool
    keeps: bool
    """Whether a `Live` has prepared the directory, and may write there, too."""
    dvcyaml: str | None
    save_dvc_exp: bool
    exp_name: str | None
    exp_message: str | None
    log_model: LogModel
    git: str | None
    dvc: str | None
    commit: str
    studio: str | None
    """Address to which updates of DVC Studio are sent; None for no updates."""
    studio_repo: str
    opens: bool
    """Whether to tell Studio that the experiment begins; a `Live` or `dvc exp run` does so."""
    ends: bool
    """Whether to end the experiment here; else its owner does: a `with`, or `dvc exp run`."""

    @property
    def root(self) -> str:
        """The folder to which paths in Studio are relative."""
        return self.dvc or self.origin


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> DVCLiveSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    live = arguments["live"]
    if live is not None:
        arguments = {**arguments, **_of_live(live, arguments)}
    given = Given(arguments, environ)
    origin = os.getcwd()
    repository = find_repository(origin, environ)
    in_pipeline = bool(environ.get("DVC_ROOT", "").strip())
    in_exp_run = in_pipeline and bool(environ.get("DVC_EXP_BASELINE_REV", "").strip())
    owned = live is not None and bool(getattr(live, "_inside_with", False))
    saves = given.switch("save_dvc_exp")
    settings = DVCLiveSettings(
        enabled=not switch(environ, "DVCLIVE_TEST"),
        dir=_path("dir", given["dir"], origin),
        origin=origin,
        resume=given.switch("resume", "DVCLIVE_RESUME"),
        keeps=live is not None,
        dvcyaml=_dvcyaml(given["dvcyaml"], origin),
        save_dvc_exp=saves and not in_pipeline and not owned and repository.git is not None,
        exp_name=_name(given.text("exp_name", "DVC_EXP_NAME")),
        exp_message=given.text("exp_message"),
        log_model=_log_model(given["log_model"], environ),
        git=repository.git,
        dvc=repository.dvc,
        commit=repository.commit,
        studio=None,
        studio_repo="",
        opens=live is None and not in_exp_run,
        ends=not owned and not in_exp_run,
    )
    return _with_studio(settings, repository, environ)


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether a variable asks for it, or the working directory lies in a DVC repository."""
    names = ("DVC_STUDIO_TOKEN", "STUDIO_TOKEN", "DVC_EXP_NAME", "DVC_ROOT")
    asked = any(environ.get(name, "").strip() for name in names)
    asked |= environ.get("HF_DVCLIVE_LOG_MODEL", "").strip().upper() not in _FALSE
    return asked or find_repository(os.getcwd(), environ).dvc is not None


def _of_live(live: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `Live`'s settings; raise if it is not a `Live`, or if settings are given, too."""
    if not any((c.__module__, c.__name__) == ("dvclive.live", "Live") for c in type(live).__mro__):
        raise ConfigurationError(f"live is a {type(live).__name__}; it takes a dvclive.Live")
    beside = [name for name, default in DEFAULTS.items() if given[name] != default]
    if beside:
        raise ConfigurationError(f"give {', '.join(beside)} to the Live, or no live")
    return {
        "dir": live.dir,
        "resume": bool(getattr(live, "_resume", False)),
        "dvcyaml": getattr(live, "_dvcyaml", None) or None,
        "save_dvc_exp": bool(getattr(live, "_save_dvc_exp", False)),
        "exp_name": getattr(live, "_exp_name", None),
        "exp_message": getattr(live, "_exp_message", None),
    }


DEFAULTS: Final[Mapping[str, Any]] = {
    "dir": "dvclive",
    "resume": None,
    "dvcyaml": "dvc.yaml",
    "save_dvc_exp": True,
    "exp_name": None,
    "exp_message": None,
}
"""Settings that a `Live` has, too, with their defaults."""


def _path(name: str, value: object, origin: str) -> str:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigurationError(f"{name} is {value!r}; it takes a path")
    path = os.fspath(value)
    if isinstance(path, bytes) or "://" in path:
        raise ConfigurationError(f"{name} is {value!r}; it takes the path of a local directory")
    return os.path.normpath(os.path.join(origin, os.path.expanduser(path)))


def _dvcyaml(value: object, origin: str) -> str | None:
    if value is None or value is False:
        return None
    path = _path("dvcyaml", value, origin)
    if os.path.basename(path) != "dvc.yaml":
        raise ConfigurationError(
            f"dvcyaml is {value!r}; it takes None, or a path that ends in dvc.yaml"
        )
    return path


def _name(name: str | None) -> str | None:
    if name is not None and _ODD_IN_NAME.search(name):
        raise ConfigurationError(
            f"exp_name (or DVC_EXP_NAME) is {name!r}; it takes a name that Git takes for a branch, "
            "without slashes"
        )
    return name


def _log_model(value: object, environ: Mapping[str, str]) -> LogModel:
    text = environ.get("HF_DVCLIVE_LOG_MODEL", "").strip() if value is None else value
    if text is True or (isinstance(text, str) and text.upper() in _TRUE):
        return "true"
    if text is False or (isinstance(text, str) and text.upper() in _FALSE):
        return "false"
    if isinstance(text, str) and text.lower() == "all":
        return "all"
    raise ConfigurationError(
        f"log_model (or HF_DVCLIVE_LOG_MODEL) is {text!r}; it takes True, False or 'all'"
    )


def _with_studio(
    settings: DVCLiveSettings, repository: Repository, environ: Mapping[str, str]
) -> DVCLiveSettings:
    """Add the address of Studio, unless the token is missing or a setting switches Studio off."""
    off = (studio_setting("offline", repository.dvc, environ) or "").upper() in _TRUE
    if switch(environ, "DVC_STUDIO_OFFLINE") or off or not studio_token(repository.dvc, environ):
        return settings
    names = ("DVC_STUDIO_REPO_URL", "STUDIO_REPO_URL")
    given = next((v for name in names if (v := environ.get(name, "").strip())), None)
    repo = given or studio_setting("repo_url", repository.dvc, environ) or repository.remote
    if repo is None:
        logger.warning(
            "DVCLive: DVC Studio gets no updates, since no Git remote says which repository this "
            "is; set DVC_STUDIO_REPO_URL"
        )
        return settings
    repo_url = without_user(repo)
    if not repo_url:
        raise ConfigurationError(
            "DVC_STUDIO_REPO_URL (or repo_url in the studio section of DVC's configuration) is no "
            "address of a repository, such as https://host/owner/name or git@host:owner/name"
        )
    url = environ.get("DVC_STUDIO_URL", "").strip()
    url = url or studio_setting("url", repository.dvc, environ) or _STUDIO
    return replace(settings, studio=_studio_address(url, environ), studio_repo=repo_url)


def _studio_address(url: str, environ: Mapping[str, str]) -> str:
    """Return the address to which updates are sent, below that of DVC Studio."""
    try:
        address = urljoin(url, environ.get("STUDIO_ENDPOINT", "").strip() or "api/live")
    except ValueError:
        address = ""
    if server_parts(address) is None:
        raise ConfigurationError(
            f"the address of DVC Studio{quoted(url)} is none: it takes one such as {_STUDIO} "
            "(in DVC_STUDIO_URL, or url in the studio section of DVC's configuration)"
        )
    return without_user(address)


def relative(path: str | Path, root: str | Path) -> str:
    """Return a path in the form of DVC's files and Studio: relative to a root, with slashes."""
    return Path(os.path.relpath(path, root)).as_posix()
