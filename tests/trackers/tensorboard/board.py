"""A real `tensorboard` over a directory, and what its HTTP API shows."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 60
"""Seconds a server may take to start and to read a directory."""


@contextmanager
def serving(directory: Path, loader: str, *, last: str) -> Iterator[httpx.Client]:
    """Serve a directory with a loader; begin when the run `last` has its scalars."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), loader]
    with subprocess.Popen(
        [*command, "--host=127.0.0.1", "--port=0", "--reload_interval=1"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            with httpx.Client(base_url=_address_of(process), timeout=PATIENCE) as client:
                _wait_until_loaded(client, last)
                yield client
        finally:
            process.terminate()


def scalars(server: httpx.Client, run: str, tag: str) -> list[tuple[int, Any]]:
    answer = server.get("data/plugin/scalars/scalars", params={"run": run, "tag": tag})
    return [(step, value) for _, step, value in answer.raise_for_status().json()]


def _address_of(server: subprocess.Popen[str]) -> str:
    """Return the address that the server prints when it listens; port 0 lets it choose a port."""
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            return found[0]
    raise AssertionError(f"tensorboard ended with {server.wait()} before it listened")


def _wait_until_loaded(client: httpx.Client, last: str) -> None:
    end = time.monotonic() + PATIENCE
    while "train/loss" not in client.get("data/plugin/scalars/tags").json().get(last, {}):
        assert time.monotonic() < end, "tensorboard did not load the runs"
