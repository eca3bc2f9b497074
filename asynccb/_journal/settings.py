"""
Read the journal's settings from environment variables, in the training process.

    ASYNCCB_OFFLINE=1           journal only: no tracker's server is contacted until `asynccb sync`
    ASYNCCB_JOURNAL_FSYNC       `never`, `always`, or seconds between two syncs (1)
    ASYNCCB_JOURNAL_LIMIT       bytes that the journal of a run may take, as in `500M` (10G)
    ASYNCCB_UPLOAD_LIMIT        bytes of files that may wait to be uploaded, per tracker (100G)
    ASYNCCB_JOURNAL_KEEP=1      keep a run's folder after everything is delivered
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from asynccb._ground.environment import switch
from asynccb._ground.exceptions import ConfigurationError
from asynccb._journal.uploads import LIMIT as UPLOAD_LIMIT
from asynccb._journal.writer import SEGMENT_SIZE

_WORDS: Final = {"never": math.inf, "always": 0.0}
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_LEAST: Final = 4 * SEGMENT_SIZE
_MOST: Final = 1 << 63
"""Bytes from which on a number is too large to be sent to the companion."""
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(I?B)?")


class JournalSettings(msgspec.Struct, frozen=True):
    """The values of the variables."""

    fsync: float = 1.0
    """Seconds between two syncs of the journal; 0 for every append, infinity for never."""
    limit: int = 10 << 30
    """Bytes, which the journal exceeds by at most a segment and a batch."""
    offline: bool = False
    keep: bool = False
    upload_limit: int = UPLOAD_LIMIT
    """Bytes of files that may wait to be uploaded, for each tracker."""


def read_settings(environ: Mapping[str, str]) -> JournalSettings:
    """Return the settings; raise `ConfigurationError` for a value that cannot work."""
    return JournalSettings(
        fsync=_seconds(environ, "ASYNCCB_JOURNAL_FSYNC", JournalSettings().fsync),
        limit=_bytes(environ, "ASYNCCB_JOURNAL_LIMIT", JournalSettings().limit),
        offline=switch(environ, "ASYNCCB_OFFLINE"),
        keep=switch(environ, "ASYNCCB_JOURNAL_KEEP"),
        upload_limit=_bytes(
            environ, "ASYNCCB_UPLOAD_LIMIT", JournalSettings().upload_limit, least=1 << 20
        ),
    )


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in _WORDS:
        return _WORDS[text]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if 0.01 <= seconds < math.inf:
        return seconds
    raise ConfigurationError(
        f"the environment variable {name} is {environ[name]!r}; it takes 'never', 'always', or "
        "seconds, at least 0.01"
    )


def _bytes(environ: Mapping[str, str], name: str, default: int, least: int = _LEAST) -> int:
    text = environ.get(name, "").strip().upper()
    if not text:
        return default
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << _UNITS[found[2]] if found else 0
    if least <= size < _MOST:
        return size
    raise ConfigurationError(
        f"the environment variable {name} is {environ[name]!r}; it takes a number of bytes, with "
        f"K, M, G or T for powers of 1024, at least {least >> 20}M and below 2^63"
    )
