"""
What several tests share: servers, and the processor.

`pytest -n auto` runs the suite in one process more than there are cores, since many tests wait for
processes, servers and clocks, whole files to each (`--dist loadfile`): then a file's tests share
what is dear to start. Plain `pytest` runs all in one. `python tests/faults/kills.py COUNT` and the
programs named in tests/programs do at length what the tests do a few times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch: the models are tiny, and threads that spin for work take the
# cores from the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings
from servers.gate import Gate, gate
from servers.mlflow_server import RealMLflow
from servers.trackio_server import RealTrackio
from servers.wandb_server import KEY, WandbServer, wandb_server

# How long an example takes says something of the machine alone.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` means."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMLflow]:
    """A real MLflow server; a test that stops it starts it again."""
    server = RealMLflow(tmp_path_factory.mktemp("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def mlflow_gate(mlflow_server: RealMLflow) -> Iterator[Gate]:
    """An address of the real MLflow server that a test may shut: it takes 10 s to start again."""
    with gate(mlflow_server.uri) as it:
        yield it


@pytest.fixture(scope="session")
def trackio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTrackio]:
    """A real Trackio server; a test that stops it starts it again."""
    server = RealTrackio(tmp_path_factory.mktemp("trackio"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def mlflow_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, proxy or file of the machine that would change what an MLflow tracker does."""
    for name in list(os.environ):
        if "MLFLOW" in name or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A W&B server, its key in the environment, and nothing that the machine may have there."""
    for name in list(os.environ):
        if name.startswith("WANDB") or name == "NETRC" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
