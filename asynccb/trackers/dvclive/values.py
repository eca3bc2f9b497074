"""
Convert logs to DVCLive's metrics, whose names are also the paths of their files.

Grouped names are the same as in transformers' callback: `train_` and `eval_` become folders
anywhere in a name, `test_` stays. A name is a path below `plots/metrics`. If a name is not a valid
path, the invalid parts are replaced and a checksum keeps the name unique. Promises: pure; the same
name gives the same path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from asynccb.trackers.names import marked, scalars

_ODD: Final = re.compile(r'[\x00-\x1f\x7f"\\]')
_LONGEST: Final = 180
"""Maximum bytes of one part of a path; file systems accept 255, suffixes included."""
_COLUMNS: Final = ("step", "timestamp")
"""DVCLive's own column names; the column of a metric is the last part of its name."""
_LINE_BREAKS: Final = re.compile(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")


def split(name: str) -> str:
    """Return a name with `train_` and `eval_` as folders, as in transformers."""
    return name.replace("train_", "train/").replace("eval_", "eval/")


def folded(name: str) -> str:
    """
    Return the same for all displayed names that cannot be there together.

    `dvc metrics` shows `a/b` as `a.b`. Names that differ in case alone, or in how an accent is
    written, are one file on macOS and Windows, where a repository with both cannot be checked out.
    """
    return unicodedata.normalize("NFC", name.replace("/", ".")).casefold()


def metric_name(name: str) -> str:
    """Return the displayed name of a name: the parts of a path, separated by slashes."""
    shown = name.encode("utf-8", "backslashreplace").decode("utf-8")
    parts = [_part(part) for part in shown.split("/")]
    safe = "/".join(parts)
    if safe != shown:
        parts[-1] = marked(parts[-1], shown)
    elif parts[-1] in _COLUMNS:
        parts[-1] += "_"
    return "/".join(parts)


def _part(part: str) -> str:
    plain = _ODD.sub("_", part)
    if plain in ("", ".", ".."):
        return "_"
    return plain.encode()[:_LONGEST].decode("utf-8", "ignore")


def metrics_of(logs: Mapping[str, Any]) -> tuple[dict[str, float | str], list[str]]:
    """Return numbers and texts, and the names of all other values."""
    numbers, others = scalars(logs)
    kept: dict[str, float | str] = {}
    for name, value in logs.items():
        if isinstance(value, int) and not isinstance(value, bool):
            kept[name] = value
        elif name in numbers:
            kept[name] = numbers[name]
        elif isinstance(value, str):
            kept[name] = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return kept, [name for name in others if not isinstance(logs[name], str | int)]


def cell(value: float | str) -> str:
    """Return a value as a table's cell, on one line, quoted as in CSV if necessary."""
    if not isinstance(value, str):
        return repr(value)
    text = _LINE_BREAKS.sub(" ", value)
    if "\t" in text or '"' in text:
        text = text.replace('"', '""')
        return f'"{text}"'
    return text
