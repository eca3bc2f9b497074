"""
The shape of traffic with a server: facts about requests, each one line of text, without values.

A tracker's `traffic.json` has the facts about its vendor's package. The `traffic.py` beside it
reads facts off requests; as a script it runs the package and writes the file anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.trackers.scripted import Request


def recorded(tracker: str) -> set[str]:
    """Return the facts about the vendor's package."""
    return set(json.loads(_file(tracker).read_text())["facts"])


def record(tracker: str, version: str, facts: Iterable[str]) -> None:
    """Write the facts about one version of the vendor's package."""
    content = {"of": version, "facts": sorted(facts)}
    _file(tracker).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _file(tracker: str) -> Path:
    return Path(__file__).parent / tracker / "traffic.json"


def kinds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each place in a value with its kind; a number is a number, whole or not."""
    if isinstance(value, dict):
        yield path, "object"
        for key, item in value.items():
            yield from kinds(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "list"
        for item in value:
            yield from kinds(item, f"{path}[]")
    elif isinstance(value, bool) or value is None:
        yield path, "null" if value is None else "boolean"
    else:
        yield path, "string" if isinstance(value, str) else "number"


def captured(file: str) -> Iterator[Request]:
    """Yield the requests of a capture: a file that shows the traffic with another server."""
    for part in re.split(r"(?m)^=== #\d+ ", Path(file).read_text())[1:]:
        first, *lines = part.splitlines()
        method, target = first.split()[1:3]
        end = next(n for n, line in enumerate(lines) if line.startswith("  BODY"))
        stop = next(n for n, line in enumerate(lines) if line.startswith("  -> "))
        pairs = (line.strip().partition(": ") for line in lines[:end])
        headers = {name.lower(): value for name, _, value in pairs}
        body = "\n".join([lines[end].removeprefix("  BODY "), *lines[end + 1 : stop]])
        yield Request(method, target, headers, body.encode())
