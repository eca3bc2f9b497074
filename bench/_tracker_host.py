"""
The tests' servers of all trackers, in a separate process.

The process is a run of pytest over this file, so it can use the fixtures of `tests/conftest.py` and
the openings of `tests/trackers/contract_cases.py`. A tracker that is added there is available here
too. The process yields to all others on the machine. The bench sends it requests over a pipe.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
_ASKED: Final = "ASYNCCB_BENCH_TRACKERS"
"""Environment variable with the pipe's address, the folder, and the trackers' names."""
_START_SECONDS: Final = 240


@dataclass(frozen=True)
class Opening:
    """How to make a tracker, and how its server shows a run; the plain data of a `Case`."""

    name: str
    """The tracker's name in `report_to`."""
    cls: str
    folder: Path
    """Working directory in which to make the tracker."""
    variables: Mapping[str, str]
    arguments: Mapping[str, Any]
    finished: str
    loss: str
    keeps_logs: bool
    """Whether logged values can be read back."""
    server: bool = field(default=False)
    """Whether the tracker sends to a server."""


class Host:
    """The connection to the process with the servers."""

    def __init__(self, pipe: Connection, openings: Sequence[Opening]) -> None:
        self._pipe = pipe
        self.openings = openings

    def read(self, name: str) -> dict[str, list[tuple[int, str, Any]]]:
        """Return the values of a tracker's runs, by run status: step, name, and value."""
        self._pipe.send(name)
        answer: dict[str, list[tuple[int, str, Any]]] = self._pipe.recv()
        if isinstance(answer, Exception):
            raise RuntimeError(f"{name}: {answer}")
        return answer


def known() -> list[str]:
    """Return the installed trackers that have an opening, in the order of `report_to`."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from asynccb.trackers.report_to import _TRACKERS, _is_there
    from tests.trackers.contract_cases import CASES

    return [name for name, home in _TRACKERS.items() if _is_there(home) and name in CASES]


@contextlib.contextmanager
def hosting(folder: Path, names: Sequence[str]) -> Iterator[Host]:
    """Start the process for some trackers, with a folder for each; end it on exit."""
    given = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(ROOT), *([given] if given else [])])
    with tempfile.TemporaryDirectory() as place, Listener(f"{place}/pipe", "AF_UNIX") as listener:
        asked = "\n".join([f"{place}/pipe", str(folder), *names])
        with (folder / "servers.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *("nice", "-n", "19", sys.executable, "-m", "pytest", "-q", "-s"),
                    *("-p", "tests.conftest", "-p", "no:cacheprovider", "-W", "default"),
                    *("--rootdir", str(ROOT), f"{__file__}::test_serve"),
                ],
                env={**os.environ, "PYTHONPATH": paths, _ASKED: asked},
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        try:
            with _connected(listener, process, folder / "servers.log") as pipe:
                yield Host(pipe, pipe.recv())
                pipe.send(None)
                process.wait(60)
        finally:
            process.terminate()
            process.wait(60)


def _connected(listener: Listener, process: subprocess.Popen[bytes], log: Path) -> Connection:
    """Wait until the process connects; RuntimeError if it ends or takes too long."""
    listener._listener._socket.settimeout(1)  # type: ignore[attr-defined]
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return listener.accept()
    process.kill()
    raise RuntimeError(f"the servers did not start:\n{log.read_text()[-3000:]}")


def test_serve(request: Any) -> None:
    """Open the requested trackers and answer requests until None; runs in the servers' process."""
    from tests.trackers.contract_cases import CASES, Case, Servers

    address, place, *names = os.environ[_ASKED].split("\n")
    cases: dict[str, Case] = {}
    openings: list[Opening] = []
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(Client(address, "AF_UNIX"))
        for name in names:
            folder = Path(place, f"asynccb-bench-{name}")
            folder.mkdir()
            case = stack.enter_context(CASES[name](folder, Servers(request)))
            cases[name] = case
            opening = Opening(
                name=name,
                cls=case.name,
                folder=folder,
                variables=case.variables,
                arguments=case.arguments,
                finished=case.finished,
                loss=case.loss,
                keeps_logs=getattr(case, "keeps_logs", True),
                server=case.front is not None,
            )
            openings.append(opening)
        pipe.send(openings)
        while (name := pipe.recv()) is not None:
            pipe.send(_values(cases[name], Path(place, f"asynccb-bench-{name}")))


def _values(case: Any, folder: Path) -> Any:
    os.chdir(folder)
    try:
        return {status: [tuple(value) for value in found] for status, found in case.read().items()}
    except Exception as error:  # noqa: BLE001 - the bench raises it again, and stops
        return RuntimeError("".join(traceback.format_exception(error)))
