"""
The shape of traffic with a ClearML server: what is sent, without the values.

`traffic.json` has that of the vendor's package `clearml` 2.1.12, recorded at this server with
`python tests/trackers/clearml/traffic.py CAPTURE…` (which needs the package), and from captures
of the same version at another one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.launching import command
from tests.trackers.clearml.schema import clearml_schema
from tests.trackers.clearml.server import clearml_server
from tests.trackers.scripted import Request
from tests.trackers.traffic import captured, kinds, record

_ACTION: Final = re.compile(r"/(?:v[0-9.]+/)?([a-z]+\.[a-z_]+)")
_FREE: Final = ("hyperparams", "configuration", "runtime", "requirements")
"""Fields whose keys are the user's."""


def facts_of(requests: Iterable[Request]) -> set[str]:
    """Return the facts about requests."""
    return {fact for request in requests for fact in _facts(request)}


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
        for path, kind in kinds(value, key):
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


def _main(captures: Iterable[str]) -> None:
    """Run the vendor's client in its modes, add captures, and write the file anew."""
    facts: set[str] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        clearml_schema(Path(folder)) as schema,
        clearml_server(schema) as server,
    ):
        for mode in ("whole", "failed"):
            subprocess.run(
                command("trackers/clearml/vendor_program", mode),
                env={**os.environ, **server.credentials(), "HOME": folder},
                cwd=folder,
                check=True,
            )
        assert server.http is not None
        facts |= facts_of(server.http.requests)
    for capture in captures:
        facts |= facts_of(_readable(capture))
    record("clearml", "clearml 2.1.12", facts)


def _readable(capture: str) -> Iterator[Request]:
    """Yield the requests of a capture, but for those whose body it shows as bytes."""
    for request in captured(capture):
        if request.target.endswith("events.add_batch"):
            request.body = "\n".join(_events(request.body.decode())).encode()
        if not request.body.startswith(b'{\n   "base64"'):
            yield request


def _events(body: str) -> Iterator[str]:
    """Yield events one a line; a capture shows one over lines, and cuts a long batch off."""
    if body.startswith("{\n"):
        yield json.dumps(json.loads(body))
        return
    for line in body.splitlines():
        if line.strip().endswith("}"):
            yield line


if __name__ == "__main__":
    _main(sys.argv[1:])
