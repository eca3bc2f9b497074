"""
Two ranks under DDP: the losses they log, what they stage, what they decide, and when one is lost.

Over NCCL where there are two GPUs (run it there before a change to any of this lands), else over
gloo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.rank_runs import check
from tests.distributed.ranks import run_ranks, torchrun_ranks
from tests.distributed.two_ranks import CUDA
from tests.trackers.mlflow.server import RealMLflow

BACKEND = "nccl" if CUDA else "gloo"
SEEDS = range(2000, 2050 if CUDA else 2008)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    given = (folder, "tests.distributed.two_ranks.stay", folder, SEEDS.start, len(SEEDS))
    return torchrun_ranks(*given, backend=BACKEND, timeout=300)


def mean_of(ranks: list[dict[str, Any]], name: str, portion: int) -> list[float]:
    """Return the mean of both ranks' own losses, over so many micro-batches each."""
    both = torch.tensor([rank["shared"][name]["own"] for rank in ranks], dtype=torch.float64)
    return both.mean(0).unflatten(0, (-1, portion)).mean(1).tolist()


@pytest.mark.parametrize(("name", "portion"), [("each", 1), ("unused", 1), ("portions", 4)])
def test_a_logged_loss_is_the_mean_over_ranks(
    ranks: list[dict[str, Any]], name: str, portion: int
) -> None:
    expected = mean_of(ranks, name, portion)
    for rank in ranks:
        assert rank["shared"][name]["logged"] == pytest.approx(expected, rel=1e-5)
    first, second = (rank["shared"][name]["own"] for rank in ranks)
    assert first != second


def test_logging_each_step_adds_no_collective_and_no_wait(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        logging, quiet = rank["shared"]["seen"]
        assert logging == quiet
        assert logging[f"{BACKEND}:all_reduce"] >= 10  # one step's gradients each, at the least


def test_what_each_rank_logs_comes_from_its_device_bit_for_bit(ranks: list[dict[str, Any]]) -> None:
    assert [rank["bits"] for rank in ranks] == [True, True]


def test_random_deciders_stop_both_ranks_at_one_step_with_one_gloo_collective_a_meeting(
    ranks: list[dict[str, Any]],
) -> None:
    runs = [rank["decided"]["runs"] for rank in ranks]
    check(runs, SEEDS, world=2)
    for rank, of_rank in zip(ranks, runs, strict=True):
        meetings = sum(run["meetings"] for run in of_rank)
        assert rank["decided"]["seen"] == {"gloo:all_reduce": meetings}


def test_a_rank_that_is_killed_is_named_and_the_first_one_s_runs_are_marked_failed(
    mlflow_server: RealMLflow, tmp_path: Path
) -> None:
    given = (tmp_path, "tests.distributed.two_ranks.lose_one", tmp_path, mlflow_server.uri)
    told, lost = run_ranks(*given, backend=BACKEND)
    assert lost is None
    assert "rank 1 ended, or gave up, before the others" in told
    (run,) = mlflow_server.runs("lost rank")
    assert run["info"]["status"] == "FAILED"
    steps = [step for step, _, _ in mlflow_server.points(run["info"]["run_id"], "loss")]
    assert steps == [1, 2, 3, 4, 5]  # it was killed at the end of the sixth
