"""A real `trackio show` server on loopback, and what a reader sees on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.trackers.gate import reserve_port

WRITE_TOKEN = "s3cr3t-of-the-contract"
_START_SECONDS = 120.0


class RealTrackio:
    """Start, stop and read one server; started again, it has the same address and the same data."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        """What `TRACKIO_DIR` is."""
        self.environ = environ
        self._reserved = reserve_port()
        self._port: int = self._reserved.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server and return when it answers (about 2 s)."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKIO", "HF_"))}
        environ = {
            **kept,
            "TRACKIO_DIR": str(self.folder),
            "TRACKIO_WRITE_TOKEN": WRITE_TOKEN,
            "GRADIO_SERVER_PORT": str(self._port),
            "HF_HUB_OFFLINE": "1",
            "BROWSER": "true",
            "TRACKIO_INBOX_POLL_INTERVAL": "5",
            **self.environ,
        }
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trackio.cli", "show", "--host", "127.0.0.1"],
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill the server at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and give its port away."""
        self.stop()
        self._reserved.close()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/version", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def call(self, api: str, /, **arguments: Any) -> Any:
        """Return what any call of the server's interface gives."""
        url = f"{self.url}/api/{api}"
        answer = httpx.post(url, json=arguments, trust_env=False, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def runs(self, project: str) -> list[dict[str, Any]]:
        return self.call("get_runs_for_project", project=project)

    def rows(self, project: str, run_id: str) -> list[dict[str, Any]]:
        """Return the rows of a run, 10,000 at most, in the order in which the server gives them."""
        asked = {"project": project, "runs": [{"run": None, "run_id": run_id}]}
        (found,) = self.call("get_logs_batch", **asked, max_points=10_000)  # of more it gives some
        rows: list[dict[str, Any]] = found["logs"]
        assert len(rows) < 10_000
        return rows

    def alerts(self, project: str, run_id: str) -> list[dict[str, Any]]:
        return self.call("get_alerts", project=project, run_id=run_id)

    def config(self, project: str, run_id: str) -> dict[str, Any]:
        return self.call("get_run_summary", project=project, run_id=run_id)["config"]
