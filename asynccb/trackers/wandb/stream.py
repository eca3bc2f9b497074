"""
The file stream of a W&B run: lines with offsets, one request at a time.

Source: `wandb` 0.31. Promises: a line keeps its offset, whatever is retried, refused or replayed.
The server stores lines by their offsets, so it has each line once. A queued line stays until it is
acknowledged. At most one request a second is sent; the server accepts two.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

import anyio

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.client import Client
from asynccb.delivery.rate import Bucket
from asynccb.trackers.shared.answers import Reject
from asynccb.trackers.wandb.api import RunInfo

HISTORY: Final = "wandb-history.jsonl"
EVENTS: Final = "wandb-events.jsonl"
CONSOLE: Final = "output.log"
SUMMARY: Final = "wandb-summary.json"

LONGEST_LINE: Final = (10 << 20) - (100 << 10)
"""Bytes of a line that the server takes."""
_LINES: Final = 10_000
_SIZE: Final = 8 << 20
"""Lines and bytes of one request, which may have 10 MiB; a line is a string in a string there."""
_PACE: Final = 1.0
"""Requests a second."""
_JSON: Final = {"Content-Type": "application/json"}


@dataclass
class Lines:
    """Queue the lines of one file; `offset` is that of the first one."""

    offset: int = 0
    waiting: deque[str] = field(default_factory=deque)

    @property
    def end(self) -> int:
        """Offset of the next line to come."""
        return self.offset + len(self.waiting)

    def first(self, count: int, size: int) -> list[str]:
        """Return the first lines, one at least if there is any, of so many bytes together."""
        taken: list[str] = []
        for line in islice(self.waiting, count):
            size -= len(line)
            if size < 0 and taken:
                break
            taken.append(line)
        return taken

    def drop(self, count: int) -> None:
        """Let lines go: they are stored."""
        for _ in range(count):
            self.waiting.popleft()
        self.offset += count


@dataclass
class _Part:
    """The contents of one request."""

    lines: dict[str, list[str]]
    summary: str | None
    last: bool
    """Whether nothing is left behind it."""

    @property
    def kinds(self) -> int:
        return len(self.lines) + (self.summary is not None)


class FileStream:
    """The queue of lines for a run's file stream, and their sender."""

    def __init__(self, on_stop: Callable[[], None]) -> None:
        """Call `stop` each time the server says that the run is to stop."""
        self.files = {name: Lines() for name in (HISTORY, EVENTS, CONSOLE)}
        self.summary: str | None = None
        """The whole summary, if it is to be sent."""
        self.exit_code: int | None = None
        """Set when the run has ended; sent behind everything else."""
        self._on_stop = on_stop
        self._bucket = Bucket(_PACE)
        self._held_until = 0.0
        """Monotonic seconds until which the server has no room for more."""

    def __bool__(self) -> bool:
        return (
            any(lines.waiting for lines in self.files.values())
            or self.summary is not None
            or self.exit_code is not None
        )

    def add(self, name: str, line: str) -> None:
        """Queue a line behind the lines of its file."""
        self.files[name].waiting.append(line)

    async def send(self, client: Client, run: RunInfo, reject: Reject) -> None:
        """Send everything; call `reject` for each line that the server does not take."""
        most, mixed = _LINES, True
        while self:
            part = self._part(most, mixed=mixed)
            try:
                await self._post(client, run, self._body(part))
            except RejectedError as error:
                if error.status == 409:
                    raise AccessError(f"the W&B run takes nothing any more: {error}") from error
                count = sum(map(len, part.lines.values()))
                if part.kinds > 1:
                    mixed = False
                elif count > 1:
                    most = count // 2
                else:
                    self._set_aside(part, error, reject)
                    most = _LINES
            else:
                self._let_go(part)

    async def beat(self, client: Client, run: RunInfo) -> None:
        """Send an empty request, which tells the server that the run lives."""
        await self._post(client, run, {})

    async def _post(self, client: Client, run: RunInfo, body: Mapping[str, Any]) -> None:
        if (held := self._held_until - time.monotonic()) > 0:
            await anyio.sleep(held)
        await self._bucket.take()
        names = "/".join(quote(name, safe="") for name in (run.entity, run.project, run.run_id))
        content = json.dumps(body, separators=(",", ":")).encode()
        reply = await client.request(
            "POST", f"files/{names}/file_stream", content=content, headers=_JSON
        )
        if reply.headers.get("RateLimit-Remaining") == "0":
            # The quota is the project's: other runs would get 429 for what this one sends.
            self._held_until = time.monotonic() + (reply.wait(("RateLimit-Reset",)) or 0.0)
        answer = reply.json()
        if isinstance(answer, dict) and answer.get("stopped"):
            self._on_stop()

    def _part(self, most: int, *, mixed: bool) -> _Part:
        """Return the contents of the next request; of one kind only, unless `mixed`."""
        size = _SIZE
        lines: dict[str, list[str]] = {}
        for name, queue in self.files.items():
            if queue.waiting and (mixed or not lines):
                lines[name] = queue.first(most, max(size, 1))
                size -= sum(map(len, lines[name]))
                if size <= 0:
                    break
        whole = all(len(lines.get(name, ())) == len(q.waiting) for name, q in self.files.items())
        summary = self.summary if whole and (mixed or not lines) else None
        return _Part(lines, summary, whole and summary is self.summary)

    def _body(self, part: _Part) -> dict[str, Any]:
        files: dict[str, Any] = {
            name: {"offset": self.files[name].offset, "content": lines}
            for name, lines in part.lines.items()
        }
        if part.summary is not None:
            files[SUMMARY] = {"offset": 0, "content": [part.summary]}
        body: dict[str, Any] = {"files": files} if files else {}
        if part.last and self.exit_code is not None:
            body |= {"complete": True, "exitcode": self.exit_code}
        return body

    def _let_go(self, part: _Part) -> None:
        for name, lines in part.lines.items():
            self.files[name].drop(len(lines))
        if part.summary is not None:
            self.summary = None
        if part.last:
            self.exit_code = None

    def _set_aside(self, part: _Part, error: RejectedError, reject: Reject) -> None:
        """Reject a line that is refused alone; a shorter line takes its place in the file."""
        if not part.kinds:
            raise AccessError(f"the W&B run cannot be ended: {error}") from error
        for name, (line,) in part.lines.items():
            bare = _bare(name, line)
            if line == bare:
                raise AccessError(f"the W&B run takes nothing any more: {error}") from error
            reject(f"a line of {name}", str(error), cause=f"{name} {error.cause}", record=line)
            self.files[name].waiting[0] = bare
        if part.summary is not None:
            reject("the summary", str(error), cause="summary", record=part.summary)
            self.summary = None


def _bare(name: str, line: str) -> str:
    """Return what keeps a line's place, so that those behind it keep theirs."""
    if name == CONSOLE:
        return line[: 32 if line.startswith("ERROR ") else 26]  # the time alone
    values = json.loads(line)
    return as_line({key: value for key, value in values.items() if key.startswith("_")})


def as_line(values: Mapping[str, Any]) -> str:
    """Return values as one JSON text, in which NaN and infinity stand bare, as the server wants."""
    return json.dumps(values, separators=(",", ":"), default=str)
