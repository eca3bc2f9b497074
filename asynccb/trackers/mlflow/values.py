"""
Convert keys and values to the nearest ones that an MLflow server accepts.

Rules observed with MLflow 3.17: a key has at most 250 characters, which are letters and digits of
any script and `_ - . space : /`, and `posixpath.normpath` must leave it unchanged. Vowel signs and
accents that are characters of their own, as in Hindi and Thai, are refused. If one key breaks these
rules, the server refuses the whole batch. If a number has an unexpected form, the server drops the
rest of the batch and still answers 200. So everything that is sent is converted here. Promises: the
keys of two metrics differ.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from asynccb.trackers.names import MARK, marked

KEY_LENGTH: Final = 250
PARAMETER_LENGTH: Final = 6000
"""Maximum characters of a parameter's value; the server silently cuts off the rest."""
TAG_LENGTH: Final = 8000

_ODD_IN_KEY: Final = re.compile(r"[^\w\-. :/]")
_ODD_IN_FILE_NAME: Final = re.compile(r"[^\w. \-]")


@lru_cache(4096)
def metric_key(name: str) -> str:
    """
    Return the key for sending a metric: its name, if the server takes that.

    A name that had to be changed ends in a checksum, which keeps it apart from others.
    """
    key = _normalized(_ODD_IN_KEY.sub("_", name))
    if key == name and len(key) <= KEY_LENGTH:
        return name
    return marked(key[: KEY_LENGTH - MARK].rstrip("/"), name)


def entity_key(name: str) -> str:
    """Return the key for sending a parameter or a tag; only a long one ends in a checksum."""
    key = _normalized(_ODD_IN_KEY.sub("_", name))
    return key if len(key) <= KEY_LENGTH else marked(key[: KEY_LENGTH - MARK].rstrip("/"), key)


def _normalized(key: str) -> str:
    """Return the key as a normalized path that is not empty."""
    parts = ("__" if part == ".." else part for part in key.split("/") if part not in ("", "."))
    path = "/".join(parts) or "_"
    # MLflow treats "..x" as an escape from the folder as well.
    return f"__{path[2:]}" if path.startswith("..") else path


def metric_value(value: float) -> float | str:
    """Return a number in a form for strict JSON: NaN and infinity become protobuf's strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def text_value(value: object) -> str:
    """Return a parameter's or tag's value without NUL, for which PostgreSQL always answers 500."""
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")


def artifact_path(path: str) -> str:
    """Return a path that the artifact proxy accepts; it decodes `%` twice and refuses `#`."""
    parts = (_ODD_IN_FILE_NAME.sub("_", part) for part in path.split("/"))
    return "/".join("__" if part in ("", ".", "..") else part for part in parts)
