"""
The shape of traffic with a ClearML server: what is sent, without the values.

`traffic.json` has that of the vendor's package `clearml` 2.1.12, recorded at this server with
`python tests/trackers/clearml/traffic.py CAPTURE…` (which needs the package), and from captures
of the same version at another one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.trackers.scripted import Request

FILE: Final = Path(__file__).with_name("traffic.json")
_ACTION: Final = re.compile(r"/(?:v[0-9.]+/)?([a-z]+\.[a-z_]+)")
_FREE: Final = ("hyperparams", "configuration", "runtime", "requirements")
"""Fields whose keys are the user's."""


class Shapes:
    """Hold what was seen: a set of facts, each one line of text."""

    def __init__(self, facts: Iterable[str]) -> None:
        self.facts = frozenset(facts)

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Self:
        """Return the facts about requests."""
        return cls(fact for request in requests for fact in _facts(request))

    def missing_in(self, other: Shapes) -> list[str]:
        """Return what is here and not there."""
        return sorted(self.facts - other.facts)


def recorded() -> Shapes:
    """Return the vendor's."""
    return Shapes(json.loads(FILE.read_text())["facts"])


def _facts(request: Request) -> Iterator[str]:
    found = _ACTION.fullmatch(request.target.partition("?")[0])
    name = found[1] if found is not None else f"file {request.method}"
    kind = request.headers.get("authorization", "none").split()[0]
    yield f"{name} is authorized by {kind}"
    if found is None:
        yield from _of_file(request)
    elif request.body.strip() not in (b"", b"null", b"{}"):
        yield name
        for line in request.body.splitlines() if name == "events.add_batch" else [request.body]:
            if line.strip():
                yield from _of_body(name, json.loads(line))


def _of_body(name: str, body: dict[str, Any]) -> Iterator[str]:
    shown = f"{name} {body['type']}" if name == "events.add_batch" else name
    for key, value in body.items():
        if key == "method":  # what the vendor's client puts everywhere, and no field
            continue
        free = key in _FREE and isinstance(value, dict)
        for path, kind in _kinds(value, key):
            yield f"{shown}: {f'{key}.*' if free and path != key else path} = {kind}"


def _of_file(request: Request) -> Iterator[str]:
    if request.method != "POST":
        return
    for head in re.findall(rb"Content-Disposition: [^\r\n]*\r?\n[^\r\n]*", request.body):
        text = head.decode().replace("\r", "")
        place = re.search(r'name="([^"]*)"', text)
        assert place is not None
        project, task, kind = place[1].lstrip("/").split("/")[:3]
        assert project
        assert re.fullmatch(r".+\.\w+", task)
        text = re.sub(r'="(/?)[^"]*"', r'="\1<project>/<task>.<id>/' + kind + '/…"', text)
        yield f"file POST: {' | '.join(line.strip() for line in text.splitlines())}"


def _kinds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each place in a value with its kind; a number is a number, whole or not."""
    if isinstance(value, dict):
        yield path, "object"
        for key, item in value.items():
            yield from _kinds(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "list"
        for item in value:
            yield from _kinds(item, f"{path}[]")
    elif isinstance(value, bool) or value is None:
        yield path, "null" if value is None else "boolean"
    else:
        yield path, "string" if isinstance(value, str) else "number"


def _record(captures: Iterable[str]) -> None:
    """Run the vendor's client in its modes, add captures, and write the file anew."""
    import os
    import subprocess
    import tempfile

    from tests.trackers.clearml.schema import clearml_schema
    from tests.trackers.clearml.server import clearml_server

    facts: set[str] = set()
    program = Path(__file__).with_name("vendor_program.py")
    with (
        tempfile.TemporaryDirectory() as folder,
        clearml_schema(Path(folder)) as schema,
        clearml_server(schema) as server,
    ):
        for mode in ("whole", "failed"):
            subprocess.run(
                [sys.executable, str(program), mode],
                env={**os.environ, **server.credentials(), "HOME": folder},
                cwd=folder,
                check=True,
            )
        assert server.http is not None
        facts |= Shapes.of(server.http.requests).facts
    for capture in captures:
        facts |= Shapes.of(_captured(Path(capture).read_text())).facts
    content = {"of": "clearml 2.1.12", "facts": sorted(facts)}
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _captured(text: str) -> Iterator[Request]:
    for part in re.split(r"(?m)^=== #\d+ ", text)[1:]:
        first, *lines = part.splitlines()
        method, target = first.split()[1:3]
        headers: dict[str, str] = {}
        end = next(n for n, line in enumerate(lines) if line.startswith("  BODY"))
        for line in lines[:end]:
            name, _, value = line.strip().partition(": ")
            headers[name.lower()] = value
        stop = next(n for n, line in enumerate(lines) if line.startswith("  -> "))
        body = "\n".join([lines[end].removeprefix("  BODY "), *lines[end + 1 : stop]])
        if target.endswith("events.add_batch"):
            body = "\n".join(_events(body))
        if not body.startswith('{\n   "base64"'):
            yield Request(method, target, headers, body.encode())


def _events(body: str) -> Iterator[str]:
    """Yield events one a line; a capture shows one over lines, and cuts a long batch off."""
    if body.startswith("{\n"):
        yield json.dumps(json.loads(body))
        return
    for line in body.splitlines():
        if line.strip().endswith("}"):
            yield line


if __name__ == "__main__":
    _record(sys.argv[1:])
