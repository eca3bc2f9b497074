"""
The shape of traffic with a Comet server: what is sent, without the values.

`traffic.json` has that of the vendor's package `comet_ml` 3.58.8, recorded at our server with
`python tests/trackers/comet_ml/traffic.py [CAPTURE...]` (which needs the package), and from
captures of the same version at another one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.launching import command
from tests.trackers.comet_ml.server import CometServer, Sent, comet_server
from tests.trackers.scripted import Request
from tests.trackers.traffic import captured, kinds, record

_HEADERS: Final = ("authorization", "content-encoding", "content-type")


def facts_of(sent: Iterable[Sent]) -> set[str]:
    """Return each fact about requests as a line of text."""
    return {fact for request in sent for fact in _facts(request)}


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
        for place, kind in kinds(request.json, ""):
            if kind != "object":
                yield f"{where} {place} = {kind}"
    elif request.body:
        found = re.search(rb'content-disposition: (form-data; name="\w+")', request.body, re.I)
        yield f"{where} {found[1].decode() if found else 'no form'}"


def _main(captures: Iterable[str]) -> None:
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
        facts |= facts_of(map(_sent, captured(capture)))
    record("comet_ml", "comet_ml 3.58.8", facts)


def _run(server: CometServer, mode: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = {"COMET_URL_OVERRIDE": f"{server.url}/clientlib/", "COMET_API_KEY": server.key}
        subprocess.run(
            command("trackers/comet_ml/vendor_program", mode, key),
            env={**os.environ, **own, "HOME": folder, "COMET_PROJECT_NAME": "proj"},
            cwd=folder,
            check=mode in ("whole", "get"),
        )


def _sent(request: Request) -> Sent:
    """Return a request of a capture as our server holds it."""
    parts = urlsplit(request.target)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    body = b"" if request.body == b"null" else request.body
    return Sent(request.method, parts.path, query, request.headers, body, 0.0)


if __name__ == "__main__":
    _main(sys.argv[1:])
