"""
The address of an MLflow tracker: a server's, or a store's on this machine.

A store is a SQLite database or a folder, which the package `mlflow` writes. Facts are from MLflow
3.17. Promises: an address that cannot work raises, with a remedy; a store's address is absolute, so
it means the same in every process; no message quotes a password.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote

from asynccb._ground.environment import folder_setting, switch
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.addresses import kept, quoted, shown, split
from asynccb.trackers.shared.packages import is_installed, require
from asynccb.trackers.shared.utf8 import path_in_utf8

ALLOW_FOLDERS: Final = "MLFLOW_ALLOW_FILE_STORE"
"""Variable without which MLflow 3.17 neither reads nor writes a store that is a folder."""

_VARIABLE: Final = "MLFLOW_TRACKING_URI"
_SQLITE: Final = "sqlite:///"
_FOLDER: Final = "file://"
_FILE: Final = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-zA-Z][\w+.\-]*:")
_USERINFO: Final = re.compile(r"[^/]:[^/]*@")
"""A user and a password, in an address whose scheme has a slip; no path is taken for one."""
_HOST_AND_PORT: Final = re.compile(r"[\w.\-]+:\d+(/.*)?")
_DATABASES: Final = ("sqlite", "mysql", "postgresql", "mssql")
_PROFILES: Final = ("databricks", "databricks-uc", "uc")
_SERVE: Final = "mlflow server --host 127.0.0.1 --port 5000"
_THEN: Final = "and give http://127.0.0.1:5000 as the tracking URI"
_INSTALL: Final = (
    "or run `pip install 'asynccb[mlflow]'`, which installs MLflow's own package: it writes "
    "databases and folders of this machine"
)
_NO_ADDRESS: Final = "is no address: it takes http(s)://host:port/prefix, sqlite:///file or a path"


def find_address(given: object, environ: Mapping[str, str]) -> str:
    """
    Return the address, in the form that is stored and compared.

    If neither the argument nor `MLFLOW_TRACKING_URI` is set, the address is MLflow's own default.
    Relative paths count from the working directory. Raises `ConfigurationError`.
    """
    uri = given if given is not None else environ.get(_VARIABLE, "").strip() or None
    if uri is None:
        return _default(environ)
    if not isinstance(uri, str | os.PathLike):
        raise ConfigurationError(
            f"tracking_uri is {uri!r}; it takes the address of a server, or a path"
        )
    address = os.fspath(uri)
    if _store_path(address) is not None:
        return _store(address, environ)
    parts = split(address)
    if parts is None:
        raise ConfigurationError(f"the MLflow tracking URI {_NO_ADDRESS}")
    _check_server(address, parts)
    if given is not None and "@" in parts.netloc:
        raise ConfigurationError(
            f"tracking_uri{quoted(address)} comes with a user or password, which is not kept: set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    return kept(address)


def comparable(address: str) -> str:
    """Return the form of any address, also of one that is refused, for comparisons."""
    path = _store_path(address)
    return kept(address) if path is None else _store_address(address, path)


def is_store(address: str) -> bool:
    """Tell whether a stored address is that of a store on this machine."""
    return address.startswith((_SQLITE, _FOLDER))


def is_folder(address: str) -> bool:
    """Tell whether a stored address is that of a store that is a folder."""
    return address.startswith(_FOLDER)


def database_path(address: str) -> Path:
    """Return the file of a database with a stored address."""
    return Path(unquote(address.removeprefix(_SQLITE)))


def database_address(path: str) -> str:
    """Return the address of the database in a file, whose path is absolute."""
    # SQLAlchemy 2.1 decodes the path; letters stay as they are, for versions that do not.
    return _SQLITE + re.sub(r"[%?#]", lambda sign: quote(sign[0]), path)


# -- a store on this machine ---------------------------------------------------------------------


def _default(environ: Mapping[str, str]) -> str:
    """Return MLflow's default: `mlruns`, if experiments are there, else `mlflow.db`."""
    if not is_installed("mlflow"):
        raise ConfigurationError(
            f"MLflow needs the address of a server, as tracking_uri= or {_VARIABLE}; without one, "
            f"start `{_SERVE} --backend-store-uri sqlite:///mlflow.db` {_THEN}, {_INSTALL}"
        )
    kept_runs = any(
        meta.parent.name.isdigit() and os.path.lexists(meta)
        for meta in Path("mlruns").glob("*/meta.yaml")
    )
    return _store("mlruns" if kept_runs else f"{_SQLITE}mlflow.db", environ)


def _store(address: str, environ: Mapping[str, str]) -> str:
    """Return the address of a store; raise `ConfigurationError` if it cannot be written."""
    path = _store_path(address)
    assert path is not None  # or the caller has no store
    is_database = address.startswith(_SQLITE)
    if not is_installed("mlflow"):
        serve = f"{_SERVE} --backend-store-uri {shlex.quote(address)}"
        what, serve = (
            ("a sqlite database", serve)
            if is_database
            else (f"the folder {address!r}", f"{ALLOW_FOLDERS}=true {serve}")
        )
        raise ConfigurationError(
            f"the MLflow tracking URI names {what}; put a server in front of it: `{serve}`, "
            f"{_THEN}, {_INSTALL}"
        )
    if is_database:
        require("sqlalchemy", "mlflow", "an MLflow database")
        if os.path.isdir(path):
            raise ConfigurationError(f"the MLflow database {path} is a folder: name a file in it")
    elif os.path.lexists(path) and not os.path.isdir(path):
        raise ConfigurationError(
            f"the MLflow store {path} is a file, and a path names a folder: for a database, give "
            f"{_SQLITE}{path}"
        )
    elif not switch(environ, ALLOW_FOLDERS):
        raise ConfigurationError(
            f"the MLflow store {path} is a folder, which MLflow refuses unless "
            f"{ALLOW_FOLDERS}=true: set that, or give a database, such as "
            f"{_SQLITE}{Path(path).with_name('mlflow.db')}"
        )
    return _store_address(address, path_in_utf8("tracking_uri", path, environ))


def _store_path(address: str) -> str | None:
    """
    Return the absolute path of the database or folder; None for any other address.

    MLflow decodes `%20` in both, and in a plain path, too.
    """
    if address.startswith(_SQLITE):
        path = unquote(address.removeprefix(_SQLITE))
        is_file = path not in ("", ":memory:") and not ({"?", "#"} & set(address))
        return os.path.abspath(path) if is_file else None
    if found := _FILE.match(address):
        path = address[found.end() :]
        is_path = bool(path) and not path.startswith("//") and not ({"?", "#"} & set(path))
    else:
        path = address
        is_path = bool(path) and "://" not in path and path not in _PROFILES
        is_path = is_path and not any(
            (_SCHEME.match(path), _HOST_AND_PORT.fullmatch(path), _USERINFO.search(path))
        )
    return folder_setting("tracking_uri", unquote(path)) if is_path else None


def _store_address(address: str, path: str) -> str:
    return database_address(path) if address.startswith(_SQLITE) else _FOLDER + quote(path)


# -- a server ------------------------------------------------------------------------------------


def _check_server(address: str, parts: SplitResult) -> None:
    """Raise `ConfigurationError`, with advice, unless the address is that of a server."""
    wrong = _advice(shown(address), parts)
    if wrong is None and not parts.hostname:
        wrong = "has no host, as in http://127.0.0.1:5000"
    if wrong is None and (parts.query or parts.fragment):
        enough = shown(kept(address))
        wrong = f"goes on after the server's address: {enough} is enough, without ? or #"
    if wrong is not None:
        raise ConfigurationError(f"the MLflow tracking URI {wrong}")


def _advice(address: str, parts: SplitResult) -> str | None:
    """
    Return the fault of an address that does not begin with `http(s)://`, and the remedy.

    `address` is the part that a message may show, which is empty if nothing may be shown.
    """
    scheme = parts.scheme.lower()
    if scheme in ("http", "https"):
        return None
    if _HOST_AND_PORT.fullmatch(address):
        return f"{address!r} has no scheme: did you mean http://{address}?"
    if scheme == "sqlite":
        return "names no file: a SQLite database is sqlite:///file.db, without ? or #"
    if scheme.partition("+")[0] in _DATABASES:
        store = _with_placeholders(address, parts)
        serve = f"{_SERVE} --backend-store-uri {shlex.quote(store)}"
        return f"names a {scheme} database; put a server in front of it: `{serve}`, {_THEN}"
    if address in _PROFILES or scheme in _PROFILES:
        return (
            "'databricks' is a profile of another program: give the workspace's https address, and "
            "its access token as MLFLOW_TRACKING_TOKEN"
        )
    if not address:
        return _NO_ADDRESS
    if scheme == "file":
        return f"{address!r} names no folder of this machine: it takes file:///folder"
    return f"has the scheme {scheme!r}; it takes http(s)://host:port/prefix, sqlite:///file or path"


def _with_placeholders(address: str, parts: SplitResult) -> str:
    """Return a database's URI for a command line, with placeholders for its secret parts."""
    if not address:
        return "DATABASE_URI"
    return address.replace("://", "://USER:PASSWORD@", 1) if "@" in parts.netloc else address
