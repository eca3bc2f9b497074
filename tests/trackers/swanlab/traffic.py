"""
The shape of traffic with a SwanLab server: what is sent, without the values.

`traffic.json` has that of the vendor's package `swanlab` 0.10.3, recorded at our server
with `python tests/trackers/swanlab/traffic.py` (which needs the package). Captures of the same
version at another server, in the form METHOD, path, headers and body, can be compared with it.
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
from urllib.parse import parse_qs, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.launching import command
from tests.trackers.scripted import Request
from tests.trackers.swanlab.server import KEY, SwanLabServer, swanlab_server
from tests.trackers.traffic import record

_PATHS: Final = (
    "/api/login/api_key",
    "/api/project/<user>/<project>",
    "/api/project",
    "/api/projects/<user>",
    "/api/project/<user>/<project>/experiment",
    "/api/project/<user>/<project>/runs/<run>",
    "/api/project/<user>/<project>/runs/<run>/profile",
    "/api/project/<user>/<project>/runs/<run>/state",
    "/api/projects/<user>/<project>/series",
    "/api/experiment/<run>/columns",
    "/api/experiment/<run>/files/<action>",
    "/api/house/experiments/<run>/heartbeat",
    "/api/house/metrics",
    "/api/house/metrics/summaries/<project>/<run>",
)
_TEMPLATES: Final = [(path, re.compile(re.sub("<[a-z]+>", "[^/]+", path))) for path in _PATHS]
_HEADERS: Final = (
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "x-swanlab-sdk-version",
)


def facts_of(requests: Iterable[Request]) -> set[str]:
    """Return what was sent: one line of text for each fact."""
    return {fact for request in requests for fact in _facts(request)}


def _facts(request: Request) -> Iterator[str]:
    parts = urlsplit(request.target)
    what = f"{request.method} {_template(parts.path)}"
    yield what
    for name in _HEADERS:
        if name in request.headers:
            value = request.headers[name]
            shown = value if name.startswith(("content", "x-")) else value.partition("=")[1]
            kept = "" if request.method == "PUT" and "storage" in what else f" {shown}"
            yield f"{what} sends {name}{kept}".rstrip()
    for name in parse_qs(parts.query):
        yield f"{what} ?{name}"
    if request.body and "storage" not in what:
        body = json.loads(request.body)
        kind = body.get("type") if isinstance(body, dict) else None
        for fact in _kinds(body, ""):
            yield f"{what}{'' if kind is None else ' ' + kind} {fact}"


def _template(path: str) -> str:
    for template, pattern in _TEMPLATES:
        if pattern.fullmatch(path):
            return template.replace("<action>", path.rpartition("/")[2])
    return path if path.startswith("/api/") else "storage"


def _kinds(value: Any, path: str) -> Iterator[str]:
    """Yield each field with the kind of its value; what users name is `<key>`."""
    kind = {str: "string", bool: "boolean", int: "number", float: "number", list: "list"}
    yield f"{path or '.'} = {kind.get(type(value), 'object')}"
    if path.endswith(".<key>.value"):
        return
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _kinds(one, f"{path}.{'<key>' if path == '.config' else name}")
    elif isinstance(value, list):
        for one in value:
            yield from _kinds(one, f"{path}[]")


def vendor(mode: str, argument: object, folder: Path, server: SwanLabServer) -> str:
    """Run the vendor's client at a server and return what it said."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SWANLAB") and not name.lower().endswith("_proxy")
    }
    hosts = {"SWANLAB_API_HOST": server.url, "SWANLAB_WEB_HOST": server.url}
    done = subprocess.run(
        command("trackers/swanlab/vendor_program", mode, argument),
        env={**kept, **hosts, "SWANLAB_API_KEY": KEY, "HOME": str(folder), "NO_PROXY": "*"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == (1 if mode == "failed" else 0), done.stderr
    return done.stdout + done.stderr


def _main() -> None:
    """Run the vendor's client in its modes, and write the file anew."""
    found: set[str] = set()
    for legacy in (False, True):
        with swanlab_server() as server, tempfile.TemporaryDirectory() as name:
            server.legacy = legacy
            vendor("whole", "one", Path(name), server)
            vendor("resume", "one", Path(name), server)
            vendor("failed", "two", Path(name), server)
            vendor("large", "three", Path(name), server)
            vendor("idle", "four", Path(name), server)
            assert server.problems == []
            found |= facts_of(server.requests)
    record("swanlab", "swanlab 0.10.3", found)


if __name__ == "__main__":
    _main()
