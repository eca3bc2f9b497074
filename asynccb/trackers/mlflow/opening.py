"""
Open a database of MLflow's on this machine, and create it if it is missing.

Promises: a new database is whole when it appears under its name, whoever is killed meanwhile and
however many processes create it. MLflow 3.17 itself makes its tables one by one, and a database
that two processes make at once can never be opened again. Call everything here in a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.mlflow.address import database_address, database_path

_ARTIFACTS: Final = "mlruns"
"""Folder of the working directory in which MLflow keeps the artifacts of a new database."""
_EXCERPT: Final = 300
"""Characters of a message of MLflow's that are quoted."""
_PACKAGES: Final = ("mlflow.", "sqlalchemy.", "alembic.")
_PASSING: Final = ("OperationalError", "IntegrityError")


def open_database(address: str, folder: str) -> Any:
    """
    Open a database; return what creates experiments in it.

    `folder` is the training's working directory, where new experiments keep their artifacts.
    MLflow's client would take the working directory of this process, which in `asynccb sync` is
    another one. Takes seconds for a new database.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    artifacts = str(Path(folder) / _ARTIFACTS)
    path = database_path(address)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as place:
            new = Path(place) / "new.db"
            SqlAlchemyStore(database_address(str(new)), artifacts).engine.dispose()
            _name(new, path)
    return SqlAlchemyStore(address, artifacts)


def _name(new: Path, path: Path) -> None:
    """Give a database its name, unless another process was faster."""
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links, where two processes may still collide
        if not path.exists():
            new.rename(path)


@contextlib.contextmanager
def naming_failures(address: str) -> Iterator[None]:
    """
    Turn errors of opening a store into ours, with its address.

    Only a database that another process has locked, or creates, can be opened later.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not _module(error).startswith(_PACKAGES):
            raise
        passes = any(type(each).__name__ in _PASSING for each in (error, error.__cause__))
        why = f"{address} cannot be opened: {excerpt(error)}"
        raise (TransientError if passes else AccessError)(why) from error


def _module(error: BaseException) -> str:
    return type(error).__module__


def excerpt(error: BaseException) -> str:
    """Return the beginning of an error's message; of SQLAlchemy's, the database's own."""
    own = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return (str(own).splitlines() or [type(own).__name__])[0][:_EXCERPT]
