"""Requests from outside: on one process, and on several ranks at one boundary."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from asynccb._compiled.shared import Shared
from asynccb._decisions.requests import Requests
from asynccb._state.control import Decision
from asynccb.distributed.agreement import Agreement
from tests.distributed.ranks import run_ranks

SAVE = Decision(should_save=True)
STOP = Decision(should_training_stop=True)
STOPPED = [2, 0, 0, 0, 0]
LATE = "a request came too late to be applied: the run has ended"


def test_a_request_is_taken_once_at_the_next_boundary() -> None:
    requests = Requests(Agreement(), Shared())
    assert requests.take(1) is None
    requests.post(SAVE)
    assert requests.take(2) == SAVE
    assert requests.take(3) is None
    requests.close()


def test_a_boundary_is_passed_by_until_something_is_asked_for() -> None:
    requests = Requests(Agreement(), Shared())
    assert requests.pass_by()
    requests.post(SAVE)
    assert not requests.pass_by()
    assert requests.take(2) == SAVE
    assert requests.pass_by()
    requests.close()


def test_ranks_that_have_come_since_are_noticed_where_a_training_begins() -> None:
    requests = Requests(Agreement(), Shared())
    assert requests.pass_by()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        requests.begin()
        assert not requests.pass_by()
    finally:
        dist.destroy_process_group()


def test_requests_between_two_boundaries_become_one() -> None:
    requests = Requests(Agreement(), Shared())
    requests.post(SAVE)
    requests.post(STOP)
    assert requests.take(1) == Decision(should_save=True, should_training_stop=True)
    requests.close()


def test_no_request_of_many_threads_is_lost() -> None:
    requests = Requests(Agreement(), Shared())
    flags = [Decision(should_save=True), Decision(should_log=True), Decision(should_evaluate=True)]
    threads = [
        threading.Thread(target=lambda each=each: [requests.post(each) for _ in range(1000)])
        for each in flags
    ]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken.append(requests.take(len(taken)))
    taken.append(requests.take(len(taken)))
    for flag in ("should_save", "should_log", "should_evaluate"):
        assert any(getattr(each, flag) for each in taken if each is not None)
    requests.close()


def test_alone_no_thread_is_started() -> None:
    before = threading.active_count()
    requests = Requests(Agreement(), Shared())
    requests.post(SAVE)
    requests.take(1)
    assert threading.active_count() <= before
    requests.close()


def test_a_request_after_the_last_boundary_is_said_to_be_too_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = Requests(Agreement(), Shared())
    requests.post(SAVE)
    with caplog.at_level(logging.WARNING, "asynccb"):
        requests.close()
    assert caplog.messages == [LATE]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What three ranks saw, by scenario."""
    return run_ranks(tmp_path_factory.mktemp("ranks"), "tests.decisions.requesting.stay", world=3)


def same(ranks: list[dict[str, dict[str, Any]]], scenario: str, *may_say: str) -> list[list[int]]:
    """Return what was applied, on all ranks at the same steps; nothing of theirs is left."""
    results = [rank[scenario] for rank in ranks]
    for result in results:
        assert result["applied"] == results[0]["applied"]
        assert set(result["said"]) <= {*may_say}
        assert result["threads"] == []
        assert result["meetings"] == 0
    return [flags for _, flags in results[0]["applied"]]


def test_a_request_of_any_rank_is_applied_on_all_at_one_step(ranks: list[Any]) -> None:
    assert same(ranks, "by turns") == [
        [0, 0, 2, 0, 0],
        [0, 0, 0, 0, 2],
        [0, 0, 0, 2, 0],
        STOPPED,
    ]


def test_requests_of_all_ranks_at_once_are_applied_on_all_at_the_same_steps(
    ranks: list[Any],
) -> None:
    # One of another rank may be beaten by the stop, which is then said.
    applied = same(ranks, "at once", LATE)
    assert any(flags[2] == 2 for flags in applied)
    assert applied[-1][0] == 2


def test_a_signal_to_one_rank_stops_all_at_one_step(ranks: list[Any]) -> None:
    assert same(ranks, "signal") == [STOPPED]


def test_a_forked_child_asks_for_nothing(ranks: list[Any]) -> None:
    assert same(ranks, "fork") == [STOPPED]


def test_a_rank_that_does_not_answer_is_named(ranks: list[Any]) -> None:
    for rank in (0, 2):
        assert "no answer from rank 1 for 2 s" in ranks[rank]["deaf"]["error"]


def test_a_request_that_a_rank_cannot_apply_any_more_is_dropped(ranks: list[Any]) -> None:
    dropped = "a request is dropped: some ranks are gone and cannot apply it"
    for rank in (0, 2):
        assert ranks[rank]["early"]["said"] == [dropped]
        assert ranks[rank]["early"]["applied"] == []


def test_a_request_after_the_last_boundary_of_all_ranks_is_said_to_be_too_late(
    ranks: list[Any],
) -> None:
    for rank in ranks:
        assert rank["end"]["said"] == [LATE]


def test_a_request_is_dropped_where_the_store_is_gone(tmp_path: Path) -> None:
    _, result = run_ranks(tmp_path, "tests.decisions.requesting.lose_the_store")
    assert result["applied"] == []
    (said,) = result["said"]
    assert said.startswith("a request is dropped: rank 0, which keeps the store")
