"""A real `trackio show` server on loopback, and what a reader sees on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.trackers.real_server import RealServer

WRITE_TOKEN = "s3cr3t-of-the-contract"


class RealTrackio(RealServer):
    """Read one server, too, whose `TRACKIO_DIR` is the folder. It starts in about 2 s."""

    HEALTH = "/version"
    SECONDS = 120.0

    def __init__(self, folder: Path, **environ: str) -> None:
        super().__init__(folder)
        self.environ = environ

    def command(self) -> list[str]:
        return [sys.executable, "-m", "trackio.cli", "show", "--host", "127.0.0.1"]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRACKIO", "HF_"))}
        return {
            **kept,
            "TRACKIO_DIR": str(self.folder),
            "TRACKIO_WRITE_TOKEN": WRITE_TOKEN,
            "GRADIO_SERVER_PORT": str(self.port),
            "HF_HUB_OFFLINE": "1",
            "BROWSER": "true",
            "TRACKIO_INBOX_POLL_INTERVAL": "5",
            **self.environ,
        }

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
