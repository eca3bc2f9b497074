"""
What an MLflow server takes as keys and values, and the nearest that it takes for what we have.

Rules observed with MLflow 3.17: a key has at most 250 characters out of letters, digits and
`_ - . space : /`, and reads the same after `posixpath.normpath`. One key that breaks them has the
whole batch refused, and one number written in another way than the server expects has the rest
of the batch dropped behind a 200: so nothing is sent that has not gone through here.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Final

KEY_LENGTH: Final = 250
PARAMETER_LENGTH: Final = 6000
"""Characters of a parameter's value; the server cuts off the rest without a word."""
TAG_LENGTH: Final = 8000

_ODD_IN_METRIC: Final = re.compile(r"[^0-9A-Za-z_\-. :/]")
_ODD_IN_KEY: Final = re.compile(r"[^\w\-. :/]")
_PLAIN: Final = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_\-]{0,249}")
_ODD_IN_FILE_NAME: Final = re.compile(r"[^\w. \-]")


def metric_key(name: str) -> str:
    """Return the key under which a metric is sent; other characters than ASCII ones become `_`."""
    return name if _PLAIN.fullmatch(name) else _acceptable(_ODD_IN_METRIC.sub("_", name))


def entity_key(name: str) -> str:
    """Return the key under which a parameter or a tag is sent; letters of any script stay."""
    return _acceptable(_ODD_IN_KEY.sub("_", name))


def _acceptable(key: str) -> str:
    """Return the key as a path that is its own normal form, not too long and not empty."""
    parts = ("__" if part == ".." else part for part in key.split("/") if part not in ("", "."))
    path = "/".join(parts) or "_"
    if path.startswith(".."):
        # MLflow takes "..x" for a way out of the folder as well.
        path = f"__{path[2:]}"
    if len(path) <= KEY_LENGTH:
        return path
    # The checksum keeps long keys with the same beginning apart.
    return f"{path[: KEY_LENGTH - 9].rstrip('/')}_{zlib.crc32(path.encode()):08x}"


def metric_value(value: float) -> float | str:
    """Return a number as strict JSON can hold it: NaN and infinity as protobuf's strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def text_value(value: object) -> str:
    """Return a parameter's or tag's value; PostgreSQL takes no NUL, and answers 500 for ever."""
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")


def artifact_path(path: str) -> str:
    """Return a path that the artifact proxy takes: it decodes `%` twice and refuses `#`."""
    parts = (_ODD_IN_FILE_NAME.sub("_", part) for part in path.split("/"))
    return "/".join("__" if part in ("", ".", "..") else part for part in parts)
