"""
A ClearML tracker's settings: where each is read from, and which values are refused.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from asynccb._ground.environment import expanded, switch
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.clearml.conf_file import Configuration, read_configuration
from asynccb.trackers.shared.addresses import quoted, server_parts
from asynccb.trackers.shared.given import Given

DEFAULT_PROJECT: Final = "HuggingFace Transformers"
DEFAULT_TASK: Final = "Trainer"
_API: Final = "https://api.clear.ml"
_SHORTEST_NAME: Final = 3
_REPORT: Final = 5.0
_PING: Final = 30.0
_SAMPLING: Final = 30.0


@dataclass(frozen=True)
class ClearMLSettings:
    """A ClearML tracker's settings as plain data; `ClearMLCallback` documents them."""

    api: str
    web: str
    files: str
    conf: str
    """Path of the configuration file, which may be missing, and may contain credentials."""
    verify: bool
    retried: list[int]
    """HTTP statuses after which a request is retried, beside the usual ones."""
    project: str
    task: str
    task_id: str | None
    external: bool
    """Whether somebody else begins and ends the task."""
    tags: list[str]
    log_model: bool
    artifacts: str | None
    console: bool
    system_metrics: float
    """Seconds between two samples; 0 for none."""
    offline: bool
    report: float
    """Seconds between two checks of the task's status."""
    ping: float
    """Seconds between two signs of life."""
    heeds_stop: bool


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> ClearMLSettings:
    """Return the settings: the arguments, and for each that is None, variable or file."""
    given = Given(arguments, environ)
    path = conf_path(environ)
    conf = open_conf(path, environ)
    api = _host(variable("API_HOST", environ), conf, "api.api_server") or _API
    web = _host(variable("WEB_HOST", environ), conf, "api.web_server") or _web_of(api)
    log_model = given.switch("log_model", "CLEARML_LOG_MODEL")
    artifacts = _folder(given["artifacts"])
    stores = log_model or artifacts is not None
    task_id = given.text("task_id")
    external = None if task_id else external_task(environ)
    return ClearMLSettings(
        api=api,
        web=web,
        files=_files(variable("FILES_HOST", environ), conf, stores) or _files_of(web),
        conf=str(path),
        verify=_verify(environ, conf),
        retried=_retried(environ, conf),
        project=_name("project", "CLEARML_PROJECT", DEFAULT_PROJECT, given),
        task=_name("task", "CLEARML_TASK", DEFAULT_TASK, given),
        task_id=task_id or external,
        external=external is not None,
        tags=given.tags("ClearML"),
        log_model=log_model,
        artifacts=artifacts,
        console=given["console"] is not None and given.switch("console"),
        system_metrics=given.seconds("system_metrics", usual=_SAMPLING, least=1),
        offline=switch(environ, "CLEARML_OFFLINE_MODE"),
        report=_seconds(conf, "sdk.development.worker.report_period_sec", _REPORT),
        ping=_seconds(conf, "sdk.development.worker.ping_period_sec", _PING),
        heeds_stop=_said(conf.text("sdk.development.support_stopping"), default=True),
    )


def variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the value of a variable, named without `CLEARML_`, or of its older `TRAINS_` name."""
    for prefix in ("CLEARML_", "TRAINS_"):
        if value := environ.get(prefix + name, "").strip():
            return value
    return ""


def conf_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the configuration file, which may be missing."""
    given = variable("CONFIG_FILE", environ)
    home = environ.get("HOME", "").strip() or "~"
    return Path(os.path.abspath(expanded(given or f"{home}/clearml.conf")))


def open_conf(path: Path, environ: Mapping[str, str]) -> Configuration:
    """Return the configuration in the file, which is empty if the file is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigurationError(
            f"ClearML's configuration file {path} cannot be read: {why}"
        ) from None
    return read_configuration(text, environ, str(path))


def external_task(environ: Mapping[str, str]) -> str | None:
    """Return the task that this process runs in, which an agent or `Task.init` has opened."""
    opened = variable("PROC_MASTER_ID", environ).partition(":")[2]
    return variable("TASK_ID", environ) or opened or None


def _host(given: str, conf: Configuration, path: str) -> str | None:
    address = given or conf.text(path)
    if address is None:
        return None
    parts = server_parts(address)
    if parts is None or "@" in parts.netloc:
        raise ConfigurationError(
            f"the ClearML address{quoted(address)} is none: {path} in clearml.conf, or its "
            "variable, takes http(s)://host:port without a user or password"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _files(given: str, conf: Configuration, stores: bool) -> str | None:
    """Return the file server's address; it may be a bucket's if nothing is to be stored."""
    address = given or conf.text("api.files_server") or ""
    scheme = address.partition("://")[0]
    if scheme in ("", "http", "https") or "://" not in address:
        return _host(given, conf, "api.files_server")
    if stores:
        raise ConfigurationError(
            f"models and artifacts go to a ClearML file server, and not to {scheme}:// directly: "
            "set CLEARML_FILES_HOST to its address, http(s)://host:port"
        )
    return f"{scheme}://"


def _web_of(api: str) -> str:
    """Return the address of the web pages, derived from the usual form of the API's address."""
    if "://api." in api:
        return api.replace("://api.", "://app.", 1)
    return api.replace(":8008", ":8080", 1)


def _files_of(web: str) -> str:
    parts = urlsplit(web)
    host = parts.netloc
    if parts.port is not None:
        host = f"{host.rpartition(':')[0]}:8081"
    elif host.startswith("app."):
        host = host.replace("app.", "files.", 1)
    else:
        host = f"{host}:8081"
    return urlunsplit(parts._replace(netloc=host))


def _verify(environ: Mapping[str, str], conf: Configuration) -> bool:
    said = variable("API_HOST_VERIFY_CERT", environ) or conf.text("api.verify_certificate")
    return _said(said, default=True)


def _said(text: str | None, *, default: bool) -> bool:
    if text is None:
        return default
    return text.strip().lower() not in ("0", "false", "no", "off")


def _retried(environ: Mapping[str, str], conf: Configuration) -> list[int]:
    given = variable("API_EXTRA_RETRY_CODES", environ)
    texts = given.split(",") if given else conf.texts("api.http.extra_retry_codes")
    codes: list[int] = []
    for text in filter(None, (text.strip() for text in texts)):
        if not (text.isascii() and text.isdigit() and 400 <= int(text) < 600):
            raise ConfigurationError(
                f"CLEARML_API_EXTRA_RETRY_CODES has {text!r}; it takes HTTP statuses with commas"
            )
        codes.append(int(text))
    return codes


def _name(name: str, variable_name: str, default: str, given: Given) -> str:
    text = given.text(name, variable_name) or default
    if len(text.strip()) < _SHORTEST_NAME:
        raise ConfigurationError(
            f"{name} (or {variable_name}) is {text!r}; ClearML takes names of {_SHORTEST_NAME} "
            "characters and more"
        )
    return text.strip()


def _folder(given: object) -> str | None:
    if given is None:
        return None
    if not (isinstance(given, str | os.PathLike) and str(given)):
        raise ConfigurationError(f"artifacts is {given!r}; it takes the path of a folder or file")
    return os.path.abspath(os.path.expanduser(given))


def _seconds(conf: Configuration, path: str, default: float) -> float:
    text = conf.text(path)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds < 1e6:
        raise ConfigurationError(f"{path} in clearml.conf is {text!r}; it takes seconds")
    return seconds
