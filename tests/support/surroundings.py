"""A test's own surroundings: nothing of the machine that would change what a tracker does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def go_home(monkeypatch: pytest.MonkeyPatch, home: Path, *words: str) -> None:
    """Move to a home of the test, without proxies and variables that have a word in their name."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or any(word in name.upper() for word in words):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


Variables = dict[str, tuple[str, dict[str, Any]]]
"""By the name of a variable its value, and the settings that a tracker takes from it."""


def check_read(
    monkeypatch: pytest.MonkeyPatch, variables: Variables, settings: Callable[[], Any]
) -> None:
    """Set all variables, and compare the settings with the table."""
    for name, (value, _) in variables.items():
        monkeypatch.setenv(name, value)
    made = settings()
    for name, (_, expected) in variables.items():
        assert {setting: getattr(made, setting) for setting in expected} == expected, name
