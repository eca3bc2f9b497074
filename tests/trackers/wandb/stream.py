"""A run on the W&B loopback server, and what its file stream may be told."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

HISTORY: Final = "wandb-history.jsonl"
EVENTS: Final = "wandb-events.jsonl"
SUMMARY: Final = "wandb-summary.json"
CONSOLE: Final = "output.log"
BODY_KEYS: Final = {"files", "uploaded", "preempting", "complete", "exitcode"}
LONGEST_LINE: Final = (10 << 20) - (100 << 10)
PER_SECOND: Final = 2
"""Requests to one run's file stream that the vendor's servers take in a second."""


class Refused(Exception):  # noqa: N818 - it is an answer
    """An answer that is no success."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def strict(text: str | bytes) -> Any:
    """Decode JSON as its standard has it: without NaN and infinity."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass
class Run:
    """Hold what the server knows of one run."""

    entity: str
    project: str
    name: str
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Other fields of the last upserts that gave them: notes, tags, groupName, jobType, host…"""
    lines: dict[str, list[str]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    summary_offset: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    uploaded: list[str] = field(default_factory=list)
    exit_code: int | None = None
    stop: bool = False
    """Whether somebody has pressed the stop button."""
    crash_after: float = 300.0
    """Seconds without a sign of life after which a run counts as crashed."""
    heard: float = field(default_factory=time.monotonic)
    resent: int = 0
    """Lines that came again, as they were."""
    times: list[float] = field(default_factory=list)
    """Monotonic seconds of the requests to the file stream."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    busy: bool = False
    upserts: int = 0

    @property
    def id(self) -> str:
        return b64encode(f"Run:v1:{self.name}:{self.project}:{self.entity}".encode()).decode()

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(EVENTS, [])]

    @property
    def console(self) -> list[str]:
        return self.lines.get(CONSOLE, [])

    @property
    def state(self) -> str:
        if self.exit_code is not None:
            return "failed" if self.exit_code else "finished"
        return "crashed" if time.monotonic() - self.heard > self.crash_after else "running"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines as somebody sees them who draws a chart: without times."""
        hidden = {"_timestamp", "_runtime"}
        return [{k: v for k, v in line.items() if k not in hidden} for line in self.history]

    def count(self, name: str) -> int:
        return len(self.lines.get(name, []))

    def admit(self, now: float, per_second: int) -> None:
        """Raise where it is one request too many."""
        recent = [moment for moment in self.times if now - moment < 1.0]
        if len(recent) >= per_second:
            raise Refused(429, "rate limit exceeded", {"Retry-After": "1"})
        self.times.append(now)

    def take(self, body: Any) -> None:
        """Take the body of a request to the file stream, or nothing of it."""
        if not isinstance(body, dict) or not body.keys() <= BODY_KEYS:
            raise Refused(400, f"a body has the keys {BODY_KEYS}")
        if self.exit_code is not None and body.get("exitcode") != self.exit_code:
            raise Refused(409, "the run is complete")
        if ("complete" in body) != ("exitcode" in body):
            raise Refused(400, "complete comes with an exitcode")
        files = body.get("files", {})
        taken: dict[str, list[str]] = {}
        for name, chunk in files.items():
            if not isinstance(chunk, dict) or chunk.keys() != {"offset", "content"}:
                raise Refused(400, f"{name}: a chunk is an offset with its content")
            offset, content = chunk["offset"], chunk["content"]
            if type(offset) is not int or not isinstance(content, list) or not content:
                raise Refused(400, f"{name}: an integer, and lines")
            for line in content:
                if not isinstance(line, str) or "\n" in line or len(line) > LONGEST_LINE:
                    raise Refused(400, f"{name}: a line is a string of at most 10 MiB")
            taken[name] = self._merged(name, offset, content)
        if HISTORY in files:
            self._check_history(taken[HISTORY], files[HISTORY]["offset"])
        self.lines.update({name: lines for name, lines in taken.items() if name != SUMMARY})
        self.bodies.append(body)
        self.uploaded += body.get("uploaded", [])
        self.heard = time.monotonic()
        if body.get("complete"):
            self.exit_code = body["exitcode"]

    def _merged(self, name: str, offset: int, content: list[str]) -> list[str]:
        if name == SUMMARY:
            if len(content) != 1 or offset != (self.summary_offset or 0):
                raise Refused(400, "the summary is one line, always at the same offset")
            self.summary_offset = offset
            self.summary = json.loads(content[0])
            return content
        if name not in (HISTORY, EVENTS, CONSOLE):
            raise Refused(400, f"no such file: {name}")
        known = self.lines.get(name, [])
        if offset > len(known):
            raise Refused(400, f"{name}: offset {offset} leaves a gap after {len(known)} lines")
        again = known[offset : offset + len(content)]
        if name != CONSOLE and again != content[: len(again)]:
            raise Refused(400, f"{name}: another line is at offset {offset} already")
        self.resent += len(again)
        return [*known[:offset], *content, *known[offset + len(content) :]]

    def _check_history(self, lines: list[str], start: int) -> None:
        last = json.loads(lines[start - 1])["_step"] if start else -1
        for line in lines[start:]:
            entry = json.loads(line)
            step = entry.get("_step")
            if type(step) is not int or step <= last:
                raise Refused(400, f"_step is {step!r} after {last}")
            for name in ("_timestamp", "_runtime"):
                if type(entry.get(name)) not in (int, float):
                    raise Refused(400, f"{name} is {entry.get(name)!r}")
            last = step
