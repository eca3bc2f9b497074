"""A server on loopback, in a child process, that answers as MLflow does, fails, or hangs."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

ANSWERS: Final = "answers"
FAULTS: Final = ("away", "silent", "503", "429")
RETRY_AFTER: Final = 1
"""Seconds of `Retry-After` in the 429 answer."""

_START_SECONDS: Final = 60.0
_RUN: Final = {"info": {"run_id": "run", "experiment_id": "1"}}
_ANSWER: Final = json.dumps({"experiment": {"experiment_id": "1"}, "run": _RUN, "runs": []})
"""An answer that suits every request of a run that logs."""


@contextlib.contextmanager
def faulty_server() -> Iterator[dict[str, str]]:
    """
    Run the server and yield the tracking URI of each behavior.

    It answers; it is away, so that connections are refused; it accepts a request but never answers;
    it answers 503; or it answers 429 with `Retry-After`.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError(f"the server did not start within {_START_SECONDS:.0f} s")
        address = f"http://127.0.0.1:{ours.recv()}"
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # without listening: connections to the port are refused
            addresses = {name: f"{address}/{name}" for name in (ANSWERS, *FAULTS)}
            yield {**addresses, "away": f"http://127.0.0.1:{taken.getsockname()[1]}"}
    finally:
        process.terminate()
        process.join()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fault = self.path.split("/")[1]
        if fault == "silent":
            self.rfile.read()  # until the client closes the connection
            self.close_connection = True
            return
        content = _ANSWER.encode()
        self.send_response(200 if fault == ANSWERS else int(fault))
        self.send_header("Content-Length", str(len(content)))
        if fault == "429":
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _serve(pipe: Any) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        pipe.send(server.server_port)
        server.serve_forever()
