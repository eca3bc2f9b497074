"""A real `mlflow server` over SQLite on loopback, running as long as a bench needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 10.0


@contextlib.contextmanager
def mlflow_server(folder: Path, niceness: int = 0, running: str = "") -> Iterator[str]:
    """
    Run a server with its data in `folder` and yield its address.

    If `running` is the address of a running server, yield that instead. The server inherits the
    cores that the caller may run on; with `niceness` 19 it yields to all other processes. If it
    does not start, raises RuntimeError with the end of its log.
    """
    if running:
        yield running
        return
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("nice", "-n", str(niceness)),
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            env=_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_healthy(address):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _is_healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: with SIGTERM first, then with SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    # Without its job runner and telemetry it starts in half the time and does nothing when idle.
    return {
        **kept,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
