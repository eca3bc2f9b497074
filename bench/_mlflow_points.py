"""The points that a run should have on an MLflow server, and the points that it really has."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, TypeAlias

import httpx
from _contenders import make_values

Points: TypeAlias = dict[str, list[tuple[int, float]]]
"""Step and value of each point, in order of step, by metric."""

PAGE: Final = 25_000
"""The most points that the server returns at once."""


def emitted_points(steps: int) -> Points:
    """Return the points from logging the steps 1 to `steps`."""
    points: Points = defaultdict(list)
    for step in range(1, steps + 1):
        for name, value in make_values(step).items():
            points[name].append((step, value))
    return points


def read_points(server: str, experiment: str, page: int = PAGE) -> Points:
    """Return the server's points of the only run of an experiment, read `page` at once."""
    with httpx.Client(base_url=f"{server}/api/2.0/mlflow/", trust_env=False, timeout=60) as client:
        query = {"experiment_name": experiment}
        found = _json(client.get("experiments/get-by-name", params=query))
        ids = [found["experiment"]["experiment_id"]]
        runs = _json(client.post("runs/search", json={"experiment_ids": ids}))["runs"]
        if len(runs) != 1:
            raise RuntimeError(f"the experiment {experiment} has {len(runs)} runs instead of one")
        run_id = runs[0]["info"]["run_id"]
        return {name: _history(client, run_id, name, page) for name in make_values(0)}


def count_points(server: str, experiment: str, steps: int) -> int:
    """
    Return the number of points in the run of an experiment.

    Raises RuntimeError unless the run has each point of `steps` steps once, with its value.
    """
    found, emitted = read_points(server, experiment), emitted_points(steps)
    count = sum(map(len, found.values()))
    if found != emitted:
        expected = sum(map(len, emitted.values()))
        raise RuntimeError(
            f"MLflow has {count} points of {experiment}, which are not the {expected} emitted"
        )
    return count


def _history(client: httpx.Client, run_id: str, name: str, size: int) -> list[tuple[int, float]]:
    points: list[tuple[int, float]] = []
    query: dict[str, Any] = {"run_id": run_id, "metric_key": name, "max_results": size}
    while True:
        page = _json(client.get("metrics/get-history", params=query))
        points += [(point.get("step", 0), float(point["value"])) for point in page["metrics"]]
        if not page.get("next_page_token"):
            return sorted(points)
        query["page_token"] = page["next_page_token"]


def _json(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()
