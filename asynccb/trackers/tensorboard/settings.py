"""
The directory of a run's event files: the given one, or the default of transformers.

Promises: the path is absolute, and the same in every process that reads the run's records.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.run_description import RunDescription
from asynccb.trackers.shared.utf8 import path_in_utf8

_VARIABLE: Final = "TENSORBOARD_LOGGING_DIR"


def default_directory(run: RunDescription, origin: str) -> str:
    """
    Return `<output_dir>/runs/<date>_<host>`; a relative `output_dir` starts at `origin`.

    Date and host are those of the run's first record; the date is in local time.
    """
    date = time.strftime("%b%d_%H-%M-%S", time.localtime(run.started // 10**9))
    output = os.path.expanduser(getattr(run.args, "output_dir", None) or "")
    return str(Path(origin, output, "runs", f"{date}_{run.host}" if run.host else date))


def given_directory(tb_writer: Any, logging_dir: str | os.PathLike[str] | None) -> str | None:
    """Return the given directory as an absolute path, or None for the default."""
    if tb_writer is not None and logging_dir is not None:
        raise ConfigurationError("give tb_writer or logging_dir, not both")
    if tb_writer is not None:
        logging_dir = getattr(tb_writer, "log_dir", None)
        if logging_dir is None:
            raise ConfigurationError(
                f"tb_writer is {tb_writer!r}, which has no log_dir; give a SummaryWriter, or the "
                "directory itself as logging_dir"
            )
    if logging_dir is None:
        logging_dir = os.environ.get(_VARIABLE) or None
        if logging_dir is None:
            return None
    if not isinstance(logging_dir, str | os.PathLike) or not os.fspath(logging_dir):
        raise ConfigurationError(f"logging_dir is {logging_dir!r}; it takes a directory's path")
    path = os.fspath(logging_dir)
    if "://" in path:
        raise ConfigurationError(
            f"logging_dir is {path!r}; event files are written to a local or mounted directory only"
        )
    path = os.path.abspath(os.path.expanduser(path))
    return path_in_utf8("logging_dir", path, os.environ)
