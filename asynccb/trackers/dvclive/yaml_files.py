"""
Write DVCLive's YAML files: `params.yaml` and `dvc.yaml`.

If `dvc.yaml` is the user's own, entries are added to it. YAML 1.1 and 1.2 read the same values.
Promises: a user's file keeps its contents, including comments and order.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_PLAIN: Final = re.compile(r"[A-Za-z_][\w./\-]*", re.ASCII)
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML does not read as texts."""
_UNPRINTABLE: Final = re.compile(r"[\x7f-\x9f\ufffe\uffff\u2028\u2029\ufeff]")
_WHOLE_MANTISSA: Final = re.compile(r"^(-?\d+)(e[+-]?\d+)$")


class ForeignFileError(Exception):
    """Adding to a user's `dvc.yaml` requires `ruamel.yaml`, which is not installed."""


def dump(values: Mapping[str, Any]) -> str:
    """Return a mapping of plain values (as `clean` returns them) in YAML's block style."""
    return "".join(_lines(values, "")) or "{}\n"


def _lines(values: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in values.items():
        start = f"{indent}{_text(str(key))}:"
        if isinstance(value, Mapping) and value:
            lines += [f"{start}\n", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value:
            lines += [f"{start}\n", *(f"{indent}- {_item(item, indent)}" for item in value)]
        else:
            lines.append(f"{start} {_flow(value)}\n")
    return lines


def _item(item: Any, indent: str) -> str:
    """Return the text after a list's dash."""
    if isinstance(item, Mapping) and item:
        return "".join(_lines(item, indent + "  ")).lstrip(" ")
    return f"{_flow(item)}\n"


def _flow(value: Any) -> str:
    """Return a value on one line, in JSON except for plain words and floats without a point."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_text(str(key))}: {_flow(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float):
        return _WHOLE_MANTISSA.sub(r"\1.0\2", repr(value))  # 1e-05 is a text in YAML 1.1
    return _text(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def _text(text: str) -> str:
    """Return a text unchanged, or quoted if YAML would not read it as a text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = msgspec.json.encode(text).decode()
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def with_entries(
    found: str | None,
    params: list[str],
    metrics: list[str],
    plots: list[str],
    artifacts: Mapping[str, Mapping[str, str]],
) -> str:
    """
    Return the text `found` of a `dvc.yaml`, with entries for these files added.

    Plots are folders of tables over `step`. Raises `ForeignFileError` if this function has not
    written the found file and `ruamel.yaml`, which DVC installs, is missing. Raises `ValueError`
    if the file cannot be read or is not a mapping of lists.
    """
    ours = _entries(params, metrics, plots, artifacts)
    if found is None or not found.strip():
        return dump(ours)
    if found == dump(ours):
        return found
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise ForeignFileError from None
    yaml = YAML()  # keeps comments, quotes and order
    yaml.preserve_quotes = True
    try:
        document = yaml.load(found)
        if document is None:
            return dump(ours)
        if not _add(document, ours):
            return found
    except (YAMLError, AttributeError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def _entries(
    params: list[str],
    metrics: list[str],
    plots: list[str],
    artifacts: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    entries = {
        "params": params,
        "metrics": metrics,
        "plots": [{folder: {"x": "step"}} for folder in plots],
        "artifacts": {name: dict(about) for name, about in artifacts.items()},
    }
    return {key: value for key, value in entries.items() if value}


def _add(document: Any, ours: Mapping[str, Any]) -> bool:
    """Add missing entries; return whether any were missing."""
    changed = False
    for key, entries in ours.items():
        if isinstance(entries, dict):
            there = document.setdefault(key, {})
            for name, about in entries.items():
                if name not in there or dict(there[name]) != about:
                    there[name] = about
                    changed = True
            continue
        there = document.setdefault(key, [])
        known = [_named(entry) for entry in there]
        for entry in entries:
            if _named(entry) not in known:
                there.append(entry)
                changed = True
    return changed


def _named(entry: Any) -> Any:
    """Return the file or folder that an entry describes."""
    return next(iter(entry), None) if isinstance(entry, Mapping) else entry
