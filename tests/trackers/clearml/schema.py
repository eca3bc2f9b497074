"""The vendor's own request classes, asked in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.launching import command


class Schema:
    """Tell what the vendor's package thinks of a request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._shapes: set[tuple[Any, ...]] = set()

    def problem(self, action: str, body: Any) -> str | None:
        """Return what is wrong with a request, or None."""
        with self._lock:
            problem: str | None = self._ask(action, body)
            return problem

    def event_problem(self, event: dict[str, Any]) -> str | None:
        """Return what is wrong with an event; asked once for each set of fields and types."""
        with self._lock:
            kinds = [(name, type(value)) for name, value in event.items()]
            shape = (event.get("type"), event.get("level"), *kinds)
            if shape in self._shapes:
                return None
            problem: str | None = self._ask("events.add", event)
            if problem is None:
                self._shapes.add(shape)
            return problem

    def parsed(self, text: str) -> Any:
        """Return what the vendor's reader makes of a configuration file; None where it fails."""
        with self._lock:
            return self._ask("conf", text)

    def _ask(self, action: str, body: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"action": action, "body": body}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def clearml_schema(home: Path) -> Iterator[Schema]:
    """Run the process for as long as the block lasts."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML", "TRAINS"))}
    with (
        (home / "errors").open("w") as errors,
        subprocess.Popen(
            command("trackers/clearml/schema_program"),
            env={**kept, "HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        ready = process.stdout.readline()
        assert ready == '"ready"\n', (home / "errors").read_text()
        try:
            yield Schema(process)
        finally:
            process.stdin.close()
