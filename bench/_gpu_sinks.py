"""
REST sinks on loopback: a server in a child process, and trackers that POST the logs to it.

The companion imports the trackers from this module, so it does not import torch.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

import httpx

from asynccb import TensorBoardCallback, TransientError
from asynccb._ground.types import RunStatus
from asynccb.trackers.base import Tracker

_START_SECONDS: Final = 60.0


class SinkCallback(Tracker):
    """Posts each group of logs as one JSON list to a URL."""

    name: ClassVar[str] = "sink"

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: httpx.AsyncClient | None = None
        self._outbox: list[dict[str, Any]] = []

    async def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._outbox.append({"step": state.global_step, **(logs or {})})

    async def flush(self) -> None:
        if not self._outbox:
            return
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False)
        try:
            answer = await self._client.post(str(self.address), json=self._outbox)
        except httpx.TransportError as error:
            raise TransientError(f"the sink did not answer: {error!r}") from error
        answer.raise_for_status()
        self._outbox.clear()

    async def finish(self, status: RunStatus) -> None:
        await self.flush()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def state(self) -> dict[str, Any]:
        return {"args": {"address": self.address}, "attributes": {}}


class SecondSinkCallback(SinkCallback):
    """A second sink class, because a second callback of one class causes a warning."""


class SecondTensorBoardCallback(TensorBoardCallback):
    """A replacement for MLflow, if MLflow is not installed."""


@contextlib.contextmanager
def sink_server() -> Iterator[str]:
    """Run a sink in a child process and yield its address; it keeps the count of values."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError(f"the sink did not start within {_START_SECONDS:.0f} s")
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def count_values(address: str) -> int:
    """Return the number of scalars that have arrived at a path of the sink."""
    answer = httpx.get(address, trust_env=False).raise_for_status()
    return int(answer.text)


def _serve(pipe: Any) -> None:
    counts: dict[str, int] = {}

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = sum(len(record) - 1 for record in records)
            counts[self.path] = counts.get(self.path, 0) + found
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(str(counts.get(self.path, 0)).encode())

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        pipe.send(server.server_port)
        server.serve_forever()
