"""
The shape of traffic with a Comet server: what is sent, without the values.

`traffic.json` has that of the vendor's package `comet_ml` 3.58.8, recorded at our server with
`python tests/trackers/comet_ml/traffic.py [CAPTURE...]` (which needs the package), and from
captures of the same version at another one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.trackers.comet_ml.server import CometServer, Sent, comet_server

FILE: Final = Path(__file__).with_name("traffic.json")
_HEADERS: Final = ("authorization", "content-encoding", "content-type")


def facts_of(sent: Iterable[Sent]) -> set[str]:
    """Return each fact about requests as a line of text."""
    return {fact for request in sent for fact in _facts(request)}


def recorded() -> set[str]:
    """Return the vendor's."""
    return set(json.loads(FILE.read_text())["facts"])


def _facts(request: Sent) -> Iterator[str]:
    # REST v2 is there under two roots, and the vendor's client takes now one, now the other.
    path = request.path.replace("/clientlib/rest/v2/", "/api/rest/v2/")
    where = f"{request.method} {path}"
    yield where
    for name in _HEADERS:
        if name in request.headers:
            value = request.headers[name].partition(";")[0]
            shown = value if name != "authorization" else re.sub(r"^\w+$", "<key>", value)
            yield f"{where} {name}: {shown}"
    for name, value in request.query.items():
        yield f"{where} ?{name}={'<flag>' if value in ('True', 'False') else ''}"
    if request.headers.get("content-type", "").startswith("application/json") and request.body:
        for place, kind in _kinds(request.json, ""):
            yield f"{where} {place} = {kind}"
    elif request.body:
        found = re.search(rb'content-disposition: (form-data; name="\w+")', request.body, re.I)
        yield f"{where} {found[1].decode() if found else 'no form'}"


def _kinds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each place in a value with its kind; a number is a number, whole or not."""
    if isinstance(value, dict):
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
    """Run the vendor's client in all its modes, add captures, and write the file anew."""
    facts: set[str] = set()
    with comet_server() as server:
        server.beat = 1.0
        for mode, key in (("whole", "0"), ("get", "0"), ("failed", "1"), ("stopped", "2")):
            server.stops = mode == "stopped"
            _run(server, mode, key * 32)
        assert server.experiments["2" * 32].others["experiment_stopped_by_user"]
        facts |= facts_of(server.sent)
    for capture in captures:
        facts |= facts_of(_captured(Path(capture).read_text()))
    content = {"of": "comet_ml 3.58.8", "facts": sorted(facts)}
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _run(server: CometServer, mode: str, key: str) -> None:
    import os
    import subprocess
    import tempfile

    program = Path(__file__).with_name("vendor_program.py")
    with tempfile.TemporaryDirectory() as folder:
        own = {"COMET_URL_OVERRIDE": f"{server.url}/clientlib/", "COMET_API_KEY": server.key}
        subprocess.run(
            [sys.executable, str(program), mode, key],
            env={**os.environ, **own, "HOME": folder, "COMET_PROJECT_NAME": "proj"},
            cwd=folder,
            check=mode in ("whole", "get"),
        )


def _captured(text: str) -> Iterator[Sent]:
    for part in re.split(r"(?m)^=== #\d+ ", text)[1:]:
        first, *lines = part.splitlines()
        method, target = first.split()[1:3]
        end = next(n for n, line in enumerate(lines) if line.startswith("  BODY"))
        stop = next(n for n, line in enumerate(lines) if line.startswith("  -> "))
        pairs = (line.strip().partition(": ") for line in lines[:end])
        headers = {name.lower(): value for name, _, value in pairs}
        body = "\n".join([lines[end].removeprefix("  BODY "), *lines[end + 1 : stop]])
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        path = urlsplit(target).path
        yield Sent(method, path, query, headers, b"" if body == "null" else body.encode(), 0.0)


if __name__ == "__main__":
    _record(sys.argv[1:])
