"""
Convert keys and values to the nearest ones that an MLflow server accepts.

Rules observed with MLflow 3.17: a key has at most 250 characters, which are letters, digits and
`_ - . space : /`, and `posixpath.normpath` must leave it unchanged. If one key breaks these rules,
the server refuses the whole batch. If a number has an unexpected form, the server drops the rest of
the batch and still answers 200. So everything that is sent is converted here.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Final

KEY_LENGTH: Final = 250
PARAMETER_LENGTH: Final = 6000
"""Maximum characters of a parameter's value; the server silently cuts off the rest."""
TAG_LENGTH: Final = 8000

_ODD_IN_METRIC: Final = re.compile(r"[^0-9A-Za-z_\-. :/]")
_ODD_IN_KEY: Final = re.compile(r"[^\w\-. :/]")
_PLAIN: Final = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_\-]{0,249}")
_ODD_IN_FILE_NAME: Final = re.compile(r"[^\w. \-]")


def metric_key(name: str) -> str:
    """Return the key for sending a metric; characters outside ASCII become `_`."""
    return name if _PLAIN.fullmatch(name) else _acceptable(_ODD_IN_METRIC.sub("_", name))


def entity_key(name: str) -> str:
    """Return the key for sending a parameter or a tag; letters of any script are kept."""
    return _acceptable(_ODD_IN_KEY.sub("_", name))


def _acceptable(key: str) -> str:
    """Return the key as a normalized path, not too long and not empty."""
    parts = ("__" if part == ".." else part for part in key.split("/") if part not in ("", "."))
    path = "/".join(parts) or "_"
    if path.startswith(".."):
        # MLflow treats "..x" as an escape from the folder as well.
        path = f"__{path[2:]}"
    if len(path) <= KEY_LENGTH:
        return path
    # The checksum keeps long keys with the same beginning distinct.
    return f"{path[: KEY_LENGTH - 9].rstrip('/')}_{zlib.crc32(path.encode()):08x}"


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
