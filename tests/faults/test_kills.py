"""A handful of random kills; `python tests/faults/kills.py 200` has more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kills import kill_many, mlflow_target
from tests.trackers.mlflow.server import RealMLflow

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_nothing_is_lost_and_nothing_doubled_whoever_is_killed(
    mlflow_server: RealMLflow, tmp_path: Path
) -> None:
    outcomes = kill_many(mlflow_target(mlflow_server), tmp_path, 6, seed=5, say=print)
    assert [str(outcome) for outcome in outcomes if outcome.trouble] == []
