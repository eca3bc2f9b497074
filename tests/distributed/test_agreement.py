"""Ranks that come to one decision, and ranks that cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._state.control import Decision, from_weights, to_weights
from asynccb.distributed.agreement import Agreement
from tests.distributed import agreeing
from tests.distributed.ranks import run_ranks
from tests.support.launching import environment

opinions = st.sampled_from([None, False, True])
decisions = st.builds(Decision, opinions, opinions, opinions, opinions, opinions)


def largest(decisions: list[Decision]) -> list[int]:
    return [max(each) for each in zip(*map(to_weights, decisions), strict=True)]


@given(decisions)
def test_a_decision_survives_its_numbers(decision: Decision) -> None:
    assert from_weights(to_weights(decision)) == decision


@given(st.lists(decisions, min_size=1))
def test_one_rank_s_wish_is_everybody_s_and_a_refusal_is_more_than_no_opinion(
    wishes: list[Decision],
) -> None:
    agreed = from_weights(largest(wishes))
    for name, opinion in vars(agreed).items():
        wished = {getattr(each, name) for each in wishes}
        assert opinion is (True if True in wished else False if False in wished else None)


def test_alone_one_agrees_with_oneself_and_exchanges_nothing() -> None:
    agreement = Agreement()
    wishes = to_weights(Decision(should_save=True))
    assert agreement.world == 1
    assert agreement.agree(1, 2, wishes) is wishes
    assert agreement.meetings == 0
    agreement.close()


def test_alone_torch_is_not_loaded() -> None:
    program = (
        "import sys\n"
        "from asynccb.distributed.agreement import Agreement\n"
        "Agreement().agree(1, 2, [0])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), timeout=60, check=True)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What three ranks saw, by scenario."""
    return run_ranks(tmp_path_factory.mktemp("ranks"), "tests.distributed.agreeing.stay", world=3)


def test_ranks_agree_on_what_any_of_them_wants(ranks: list[dict[str, Any]]) -> None:
    wishes = [[agreeing.wishes_of((rank, number)) for rank in range(3)] for number in range(50)]
    for rank in ranks:
        assert rank["often"] == [largest(each) for each in wishes]


def test_two_agreements_do_not_mix(ranks: list[dict[str, Any]]) -> None:
    wishes = [[agreeing.wishes_of(rank + more) for rank in range(3)] for more in (0, 10, 20)]
    for rank in ranks:
        assert rank["two"] == [largest(each) for each in wishes]


def test_a_rank_that_is_late_is_waited_for(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["late"] == [0, 0, 2, 0, 0]


@pytest.mark.parametrize(("scenario", "step"), [("step differs", 9), ("schedule differs", 7)])
def test_a_rank_with_other_decisions_due_is_named_on_all(
    ranks: list[dict[str, Any]], scenario: str, step: int
) -> None:
    odd = f"rank 1 (at step {step}) had other decisions due than ranks 0, 2 (at step 7)"
    for rank in ranks:
        assert odd in rank[scenario]["error"]


def test_an_agreement_that_failed_says_so_again(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        first, second = rank["again"]
        assert second["error"] == first["error"]


def test_an_agreement_outlives_the_process_group(ranks: list[dict[str, Any]]) -> None:
    assert all(rank["outlived"]["alone"] for rank in ranks)


def errors(results: list[Any], lost: int) -> list[str]:
    """Return what the surviving ranks said."""
    return [result["error"] for rank, result in enumerate(results) if rank != lost]


def test_a_rank_that_ends_is_named_on_all_others(tmp_path: Path) -> None:
    results = run_ranks(
        tmp_path, "tests.distributed.agreeing.lose_one", 2, "SIGKILL", "met", world=4
    )
    for error in errors(results, lost=2):
        assert (
            error
            == "the ranks could not agree at step 7: rank 2 ended, or gave up, before the others"
        )


def test_a_rank_that_stalls_is_named_on_all_others(tmp_path: Path) -> None:
    results = run_ranks(
        tmp_path, "tests.distributed.agreeing.lose_one", 2, "SIGSTOP", "met", world=4
    )
    for error in errors(results, lost=2):
        assert "no answer from rank 2 for 4 s" in error


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_the_rank_that_keeps_the_store_is_named_too(tmp_path: Path, signal: str) -> None:
    results = run_ranks(tmp_path, "tests.distributed.agreeing.lose_one", 0, signal, "met", world=3)
    for error in errors(results, lost=0):
        assert "rank 0, which keeps the store of the process group, has ended or does not" in error


@pytest.mark.parametrize("met", ["met", "never met"])
def test_a_store_that_stands_still_for_a_while_is_waited_for(tmp_path: Path, met: str) -> None:
    assert (
        run_ranks(tmp_path, "tests.distributed.agreeing.stand_still", met) == [[0, 0, 2, 0, 0]] * 2
    )


def test_a_rank_that_never_came_is_named_on_all_others(tmp_path: Path) -> None:
    results = run_ranks(
        tmp_path, "tests.distributed.agreeing.lose_one", 1, "SIGKILL", "never met", world=3
    )
    for error in errors(results, lost=1):
        assert "no answer from rank 1 for 4 s" in error


def test_ctrl_c_ends_the_waiting_and_the_process(tmp_path: Path) -> None:
    interrupted, other = run_ranks(tmp_path, "tests.distributed.agreeing.be_interrupted")
    assert interrupted["error"] == ""
    assert "rank 0" in other["error"]


def test_a_scenario_that_fails_fails_its_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no attribute 'misspelt'"):
        run_ranks(tmp_path, "tests.distributed.agreeing.misspelt")
