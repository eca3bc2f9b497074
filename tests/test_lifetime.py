"""What happens to an object at the end of its process, and what the run is said to have come to."""

from __future__ import annotations

import gc
import os
import weakref

import pytest

from asynccb._ground.lifetime import at_exit, in_forked_children, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        (SystemExit(), "finished"),
        (SystemExit(0), "finished"),
        (SystemExit(1), "failed"),
        (SystemExit("a message"), "failed"),
        (RuntimeError("x"), "failed"),
        (KeyboardInterrupt(), "killed"),
    ],
    ids=repr,
)
def test_the_exception_that_ends_a_program_says_how_its_run_ended(
    error: BaseException | None, status: str
) -> None:
    assert status_of(error) == status


class Watched:
    def __init__(self) -> None:
        self.forks = 0

    def ended(self, error: BaseException | None) -> None:
        raise AssertionError("it was freed, or the call was cancelled")

    def forked(self) -> None:
        self.forks += 1


def test_neither_the_exit_nor_a_fork_keeps_an_object_alive() -> None:
    watched = Watched()
    at_exit(watched.ended)
    in_forked_children(watched.forked)
    freed = weakref.ref(watched)
    del watched
    gc.collect()
    assert freed() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_and_its_parent_is_not() -> None:
    watched = Watched()
    in_forked_children(watched.forked)
    child = os.fork()
    if child == 0:
        os._exit(watched.forks)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert watched.forks == 0
