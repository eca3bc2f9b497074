"""Servers that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.mlflow_server import RealMLflow


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMLflow]:
    """A real MLflow server; a test that stops it starts it again."""
    server = RealMLflow(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mlflow_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, proxy or file of the machine that would change what an MLflow tracker does."""
    for name in list(os.environ):
        if "MLFLOW" in name or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
