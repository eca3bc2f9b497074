"""
What only DVC itself can do for DVCLive: keep files in its cache, save an experiment.

It runs in a process of its own, which this module is, too (`python -m`), so that it can take its
time, and be ended; it needs the package `dvc`. As `Live` does, it makes a Git repository that is
none of DVC's one. Promises: no network, no analytics; each call may be made again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import anyio
from anyio import to_thread

from asynccb._ground.exceptions import RejectedError, TransientError
from asynccb._journal.uploads import KeptFile

_COMMIT: Final = re.compile("[0-9a-f]{40}")
_BUSY: Final = 75
"""Exit status where another DVC holds the repository; that of `EX_TEMPFAIL`."""
_LONGEST: Final = 400
"""Characters of an error that are quoted, from its end."""


async def keep(origin: str, files: Iterable[KeptFile], place: Path) -> None:
    """
    Copy files to where a folder is, or is to be, and have DVC track that.

    Raises `TransientError`, `RejectedError`, and `OSError`.
    """
    await to_thread.run_sync(_copy, files, place)
    await _ask(origin, {"what": "add", "path": str(place)})


def _copy(files: Iterable[KeptFile], place: Path) -> None:
    new = place.with_name(f".{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for file in files:
        copy = new / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, copy)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)


async def save_experiment(
    origin: str, *, name: str, message: str | None, untracked: list[str]
) -> str | None:
    """Save the working tree as an experiment, in place of one of that name; return its commit."""
    order = {"what": "save", "name": name, "message": message, "untracked": untracked}
    said = (await _ask(origin, order)).splitlines()
    return said[-1] if said and _COMMIT.fullmatch(said[-1]) else None


async def _ask(origin: str, order: dict[str, Any]) -> str:
    if find_spec("dvc") is None:
        raise RejectedError("that needs DVC: pip install dvc")
    done = await anyio.run_process(
        [sys.executable, "-m", __name__, json.dumps(order)],
        check=False,
        cwd=origin,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )
    said = " ".join(done.stderr.decode("utf-8", "replace").split())[-_LONGEST:]
    if done.returncode == _BUSY or done.returncode < 0:
        raise TransientError(f"DVC is busy: {said}")
    if done.returncode:
        raise RejectedError(f"DVC says: {said or done.returncode}")
    return done.stdout.decode("utf-8", "replace").strip()


def main(order: dict[str, Any]) -> int:
    """Do what is ordered, in the repository of the working directory; return the exit status."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    try:
        with _repository() as repository:
            if order["what"] == "add":
                repository.add(order["path"])
            else:
                print(
                    repository.experiments.save(
                        name=order["name"],
                        include_untracked=order["untracked"],
                        force=True,
                        message=order["message"],
                    )
                    or ""
                )
    except LockError as error:
        print(error, file=sys.stderr)
        return _BUSY
    except DvcException as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _repository() -> Any:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import Git

    try:
        return Repo()
    except NotDvcRepoError:
        return Repo.init(Git().root_dir)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
