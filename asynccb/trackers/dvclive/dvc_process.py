"""
Run DVC for DVCLive, to store files in DVC's cache and to save an experiment.

DVC runs in its own process, so that it may be slow and can be killed; this module is also that
process's program (`python -m`). It needs the package `dvc`. If the Git repository is not a DVC
repository, DVC is initialized in it, as `Live` does. Promises: no network, no analytics; each call
may be repeated.
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
"""Exit status if another DVC process has locked the repository; the same as `EX_TEMPFAIL`."""
_LONGEST: Final = 400
"""Number of characters from the end of an error that are quoted."""


async def keep(origin: str, files: Iterable[KeptFile], place: Path) -> None:
    """
    Replace the folder `place` with copies of the files, and let DVC track it.

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
    """Save the working tree as an experiment, replacing any with that name; return its commit."""
    order = {"what": "save", "name": name, "message": message, "untracked": untracked}
    said = (await _ask(origin, order)).splitlines()
    return said[-1] if said and _COMMIT.fullmatch(said[-1]) else None


async def _ask(origin: str, order: dict[str, Any]) -> str:
    if find_spec("dvc") is None:
        raise RejectedError("DVC is not installed: run `pip install dvc`")
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
        raise RejectedError(f"DVC failed: {said or done.returncode}")
    return done.stdout.decode("utf-8", "replace").strip()


def main(order: dict[str, Any]) -> int:
    """Carry out an order in the working directory's repository; return the exit status."""
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
