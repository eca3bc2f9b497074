"""The environment variables that say how a journal is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asynccb import CallbackDispatcher, ConfigurationError
from asynccb._journal.settings import JournalSettings, read_settings


def test_without_variables_there_are_defaults() -> None:
    assert read_settings({}) == JournalSettings(
        fsync=1.0, limit=10 << 30, offline=False, keep=False, upload_limit=100 << 30
    )
    empty = dict.fromkeys(("ASYNCCB_JOURNAL_FSYNC", "ASYNCCB_UPLOAD_LIMIT", "ASYNCCB_OFFLINE"), "")
    assert read_settings(empty) == JournalSettings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("never", math.inf), ("Always", 0.0), ("0.01", 0.01), (" 30 ", 30.0), ("1e2", 100.0)],
)
def test_fsync_takes_words_and_seconds(text: str, seconds: float) -> None:
    assert read_settings({"ASYNCCB_JOURNAL_FSYNC": text}).fsync == seconds


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "often", "1 s", "0.001"])
def test_fsync_refuses_what_cannot_work(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"ASYNCCB_JOURNAL_FSYNC is '{text}'; it takes 'never', 'always'"
    ):
        read_settings({"ASYNCCB_JOURNAL_FSYNC": text})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("67108864", 64 << 20),
        ("64M", 64 << 20),
        ("2g", 2 << 30),
        ("2 GiB", 2 << 30),
        ("500MB", 500 << 20),
        ("1T", 1 << 40),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_the_limit_takes_bytes_and_units(text: str, size: int) -> None:
    assert read_settings({"ASYNCCB_JOURNAL_LIMIT": text}).limit == size


@pytest.mark.parametrize("text", ["0", "63M", "-1G", "much", "10 X", "1.5G", "8388608T"])
def test_the_limit_refuses_what_cannot_work(text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"_LIMIT is '{text}'; .* at least 64M"):
        read_settings({"ASYNCCB_JOURNAL_LIMIT": text})


def test_the_limit_of_uploads_may_be_as_small_as_a_checkpoint() -> None:
    assert read_settings({"ASYNCCB_UPLOAD_LIMIT": "1M"}).upload_limit == 1 << 20
    with pytest.raises(ConfigurationError, match=r"_UPLOAD_LIMIT is '1023K'; .* at least 1M"):
        read_settings({"ASYNCCB_UPLOAD_LIMIT": "1023K"})


def test_switches_are_read() -> None:
    settings = read_settings({"ASYNCCB_OFFLINE": "yes", "ASYNCCB_JOURNAL_KEEP": "1"})
    assert settings.offline
    assert settings.keep


@pytest.mark.parametrize(
    "name",
    [
        "ASYNCCB_OFFLINE",
        "ASYNCCB_JOURNAL_KEEP",
        "ASYNCCB_JOURNAL_FSYNC",
        "ASYNCCB_JOURNAL_LIMIT",
        "ASYNCCB_UPLOAD_LIMIT",
    ],
)
def test_a_dispatcher_refuses_them_when_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "perhaps")
    with pytest.raises(ConfigurationError, match=f"{name} is 'perhaps'"):
        CallbackDispatcher([], directory=tmp_path)
