"""
A DVC Studio on loopback: takes live updates at one address, as strict as the vendor's own schema.

It keeps experiments by repository, commit and name. A row that is there is kept once: whether the
real one does so is not known, but both its own client and we send rows again after a lost answer.
The vendor's `dvclive` works against it (`test_vendor.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dvc_studio_client.post_live_metrics import (
    MAX_NUMBER_OF_PLOTS,
    MAX_PLOT_SIZE,
    MAX_REQUEST_SIZE,
)
from dvc_studio_client.schema import SCHEMAS_BY_TYPE
from voluptuous import Invalid

from tests.trackers.scripted import Answer, Request, serving

TOKEN = "isat_token-of-studio"


@dataclass
class Experiment:
    """Hold what is known of one experiment."""

    started: int = 0
    done: bool = False
    message: str = ""
    revision: str = ""
    step: int = -1
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows by file."""
    known: dict[str, set[tuple[int, str]]] = field(default_factory=dict)
    """The same, to look them up."""


class Studio:
    """Take live updates."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.experiments: dict[tuple[str, str, str], Experiment] = {}
        self.bodies: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.problems: list[str] = []
        """What was wrong with requests, besides the token."""
        self.url = ""

    async def __call__(self, request: Request) -> Answer:
        if (request.method, request.target) != ("POST", "/api/live"):
            return Answer(404, b"not here")
        if request.headers.get("authorization") != f"token {self.token}":
            return Answer(401, b'{"detail": "Invalid token."}')
        body = json.loads(request.body)
        problem = self._problem(request, body)
        if problem:
            self.problems.append(problem)
            return Answer(400, problem.encode())
        self.bodies.append(body)
        self.sizes.append(len(request.body))
        return self._take(body)

    def _problem(self, request: Request, body: dict[str, Any]) -> str:
        try:
            SCHEMAS_BY_TYPE[body["type"]](body)
        except Invalid as error:
            return f"{body['type']}: {error}"
        plots = body.get("plots", {})
        if len(request.body) > MAX_REQUEST_SIZE or len(plots) > MAX_NUMBER_OF_PLOTS:
            return "too large"
        if any(len(json.dumps(plot.get("data", []))) > MAX_PLOT_SIZE for plot in plots.values()):
            return "a plot is too large"
        if body["client"] != "dvclive" or not body["repo_url"]:
            return "no client, or no repository"
        return ""

    def _take(self, body: dict[str, Any]) -> Answer:
        place = (body["repo_url"], body["baseline_sha"], body["name"])
        if body["type"] == "start":
            experiment = self.experiments.setdefault(place, Experiment())
            experiment.started += 1
            experiment.done = False
            experiment.message = body.get("message", "")
            return Answer(200, b"{}")
        experiment = self.experiments.setdefault(place, Experiment())
        if body["type"] == "done":
            experiment.done = True
            experiment.revision = body.get("experiment_rev", "")
            return Answer(200, b"{}")
        experiment.step = body["step"]
        for kept, key in ((experiment.params, "params"), (experiment.metrics, "metrics")):
            kept.update(body.get(key, {}))
        for file, plot in body.get("plots", {}).items():
            rows = experiment.plots.setdefault(file, [])
            known = experiment.known.setdefault(file, set())
            rows += [row for row in plot["data"] if (row["step"], repr(row)) not in known]
            known.update((row["step"], repr(row)) for row in plot["data"])
        return Answer(200, b"{}")


@contextmanager
def studio_server(token: str = TOKEN) -> Iterator[Studio]:
    """Run a Studio for as long as the block lasts."""
    studio = Studio(token)
    with serving(studio) as server:
        studio.url = server.url
        yield studio
