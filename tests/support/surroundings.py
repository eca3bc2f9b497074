"""A test's own surroundings: nothing of the machine that would change what a tracker does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def go_home(monkeypatch: pytest.MonkeyPatch, home: Path, *words: str) -> None:
    """Move to a home of the test, without proxies and variables that have a word in their name."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or any(word in name.upper() for word in words):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
