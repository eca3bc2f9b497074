"""A real `mlflow server` over SQLite on loopback, and what a reader sees on it."""

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

_START_SECONDS = 180.0


class RealMLflow:
    """Start, stop and read one server; started again, it has the same address and the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reserved = reserve_port()
        self._port = self._reserved.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server and return when it answers (about 7 s; much more on a busy machine)."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self._port)),
                    *("--backend-store-uri", f"sqlite:///{self.folder}/db.sqlite"),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                env=_environment(),
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
        """Kill the server and its workers at once."""
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
            return httpx.get(f"{self.uri}/health", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the server's JSON for any call of the REST interface."""
        url = f"{self.uri}/api/2.0/mlflow/{path}"
        answer = httpx.request(method, url, trust_env=False, timeout=30, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run: `info`, `data` and so on."""
        return self.call("GET", "runs/get", params={"run_id": run_id})["run"]

    def params(self, run_id: str) -> dict[str, str]:
        return _mapping(self.run(run_id)["data"].get("params", []))

    def tags(self, run_id: str) -> dict[str, str]:
        return _mapping(self.run(run_id)["data"].get("tags", []))

    def points(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """Return all points of a metric, as (step, value, timestamp in ms), in order of step."""
        query = {"run_id": run_id, "metric_key": key, "max_results": "25000"}
        found = self.call("GET", "metrics/get-history", params=query).get("metrics", [])
        return sorted((p.get("step", 0), float(p["value"]), p["timestamp"]) for p in found)

    def experiments(self) -> list[dict[str, Any]]:
        """Return all experiments."""
        body = {"max_results": 1000}
        return self.call("POST", "experiments/search", json=body)["experiments"]

    def runs(self, experiment_name: str) -> list[dict[str, Any]]:
        """Return all runs of an experiment; none where there is no such experiment."""
        found = [each for each in self.experiments() if each["name"] == experiment_name]
        if not found:
            return []
        body = {"experiment_ids": [found[0]["experiment_id"]], "run_view_type": "ALL"}
        return self.call("POST", "runs/search", json=body).get("runs", [])


def _mapping(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in pairs}


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTHON"))}
    # Without its job runner and reports the server starts in half the time and memory.
    return {
        **kept,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
