"""A real `mlflow server` over SQLite on loopback, and what a reader sees on it."""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

from tests.trackers.real_server import RealServer


class RealMLflow(RealServer):
    """Read one server, too. It starts in about 7 s, and much later on a busy machine."""

    HEALTH = "/health"
    SECONDS = 180.0

    @property
    def uri(self) -> str:
        """The server's address, by MLflow's name for it."""
        return self.url

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder}/db.sqlite"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTHON"))}
        # Without its job runner and reports the server starts in half the time and memory.
        return {
            **kept,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

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
