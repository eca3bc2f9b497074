"""
Whole runs on several ranks: all decide the same at the same step, or say who is missing.

`python tests/decisions/prove_decisions.py ranks 200` has more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.rank_runs import LONGEST, PATIENCE, Plan, check
from tests.distributed.ranks import run_ranks, torchrun_ranks

RUNS = {2: range(30), 4: range(1000, 1012)}
"""Seeds of the runs with random deciders, by the number of ranks."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks saw, by scenario."""
    folder, seeds = tmp_path_factory.mktemp("ranks"), RUNS[2]
    return torchrun_ranks(
        folder, "tests.distributed.rank_runs.stay", folder, seeds.start, len(seeds)
    )


def test_whoever_decides_two_ranks_stop_at_one_step_and_meet_only_where_something_is_due(
    ranks: list[dict[str, Any]],
) -> None:
    check([rank["random"] for rank in ranks], RUNS[2], world=2)


def test_so_do_four_ranks(tmp_path: Path) -> None:
    seeds = RUNS[4]
    function = "tests.distributed.rank_runs.decide_at_random"
    check(torchrun_ranks(tmp_path, function, seeds.start, len(seeds), world=4), seeds, world=4)


def test_the_plans_have_boundaries_without_a_meeting_and_runs_that_end_early() -> None:
    plans = [Plan(seed, world) for world, seeds in RUNS.items() for seed in seeds]
    assert any(plan.meetings() < plan.end() for plan in plans)
    assert any(plan.end() < LONGEST for plan in plans)


def test_what_one_rank_s_companion_decides_holds_on_all(ranks: list[dict[str, Any]]) -> None:
    assert [rank["companion"] for rank in ranks] == [6, 6]


def test_what_one_rank_decides_on_a_save_holds_on_all_in_a_resumed_run_too(
    ranks: list[dict[str, Any]],
) -> None:
    files, decided = ["on_save_0.json", "on_save_1.json"], [False, True]
    assert ranks[0]["saved"] == [decided, files, decided, files]
    assert ranks[1]["saved"] == [decided, decided]


def test_a_request_on_one_rank_stops_all_at_one_step_without_a_meeting(
    ranks: list[dict[str, Any]],
) -> None:
    assert ranks[0]["request"] == ranks[1]["request"]
    assert ranks[0]["request"]["end"] > 3
    assert ranks[0]["request"]["meetings"] == 0


def test_early_stopping_by_one_rank_s_metric_stops_all(ranks: list[dict[str, Any]]) -> None:
    assert [rank["early"] for rank in ranks] == [6, 6]


def test_early_stopping_stops_a_trainer_s_ranks_together_under_ddp(
    ranks: list[dict[str, Any]],
) -> None:
    assert ranks[0]["early in a trainer"] == ranks[1]["early in a trainer"]
    assert ranks[0]["early in a trainer"]["end"] == 5


def test_a_trainer_s_ranks_stop_together_with_the_same_weights(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["decider"] == ranks[1]["decider"]
    assert ranks[0]["decider"]["end"] == 5


def test_sigterm_to_one_rank_saves_and_stops_all(ranks: list[dict[str, Any]]) -> None:
    ended = ranks[0]["terminated"]
    assert ranks[1]["terminated"] == ended
    assert ended["files"] == [f"checkpoint-{ended['end']}"]


def test_a_rank_that_differs_or_dies_is_named_by_all_others(tmp_path: Path) -> None:
    first, lost, third = run_ranks(
        tmp_path, "tests.distributed.rank_runs.fall_apart", tmp_path, world=3
    )
    assert lost is None
    for differs, died in (first, third):
        assert "rank 1 (at step 3) had other decisions due than ranks 0, 2 (at step 2)" in differs
        assert "rank 1 ended, or gave up, before the others" in died


def test_a_rank_that_stalls_is_named_by_all_others_within_ddp_timeout(tmp_path: Path) -> None:
    first, stalled, third = run_ranks(
        tmp_path, "tests.distributed.rank_runs.stall", tmp_path, world=3
    )
    assert stalled is None
    for rank in (first, third):
        assert "no answer from rank 1 for 4 s" in rank["error"]
        assert rank["seconds"] < 2 * PATIENCE  # a hang, not a slow machine


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices")
def test_beside_nccl_no_gpu_is_waited_for(tmp_path: Path) -> None:
    function = "tests.distributed.rank_runs.meet_beside_nccl"
    for rank in torchrun_ranks(tmp_path, function, tmp_path, backend="nccl"):
        assert rank["end"] == 7
        assert all(rank["left busy"][2:])  # the first meeting is at the second boundary
