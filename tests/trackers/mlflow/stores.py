"""What MLflow's own client reads in a store on this machine, in the terms of `RealMLflow`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # or importing it starts a thread


class StoreReader:
    """Read one store, which may be missing."""

    def __init__(self, uri: str, place: Path) -> None:
        """Take the address and the file or folder at it."""
        self.uri = uri
        self._place = place

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Return all runs of an experiment, newest first."""
        if not self._place.exists():
            return []
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        runs = [] if found is None else client.search_runs([found.experiment_id])
        return [run.to_dictionary() for run in runs]

    def points(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """Return all points of a metric, as (step, value, timestamp in ms), in order of step."""
        found = self.client().get_metric_history(run_id, key)
        return sorted((point.step, point.value, point.timestamp) for point in found)

    def values(self, experiment: str) -> dict[str, list[tuple[int, str, float]]]:
        """Return the points of each run, by its status and number."""
        return {
            f"{run['info']['status']}#{number}": sorted(
                (step, name, value)
                for name in run["data"]["metrics"]
                for step, value, _ in self.points(run["info"]["run_id"], name)
            )
            for number, run in enumerate(self.runs(experiment))
        }

    def client(self) -> Any:
        """Return MLflow's own client of the store."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


def database(folder: Path) -> StoreReader:
    return StoreReader(f"sqlite:///{folder}/mlflow.db", folder / "mlflow.db")


def folder_store(folder: Path) -> StoreReader:
    """MLflow reads and writes it under `MLFLOW_ALLOW_FILE_STORE` alone."""
    return StoreReader(f"file://{folder}/runs", folder / "runs")
