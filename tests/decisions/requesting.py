"""What the ranks of `test_requests.py` do; each returns what its rank saw."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from itertools import count
from typing import Any

import torch.distributed as dist

from asynccb._compiled.shared import Shared
from asynccb._decisions.requests import Requests
from asynccb._ground.exceptions import AgreementError
from asynccb._state.control import Decision, to_weights
from asynccb.distributed.agreement import Agreement
from tests.support.waiting import eventually

SAVE = Decision(should_save=True)
STOP = Decision(should_training_stop=True)


class Said(logging.Handler):
    """Keep what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        logging.getLogger("asynccb").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def take(self) -> list[str]:
        """Keep no more, and return what was."""
        logging.getLogger("asynccb").removeHandler(self)
        return self.texts


class Loop:
    """Train in step with the other ranks, and note what is applied where."""

    def __init__(self, limit: float = 30.0) -> None:
        self.said = Said()
        self.agreement = Agreement(limit=limit)
        self.requests = Requests(self.agreement, Shared())
        self.applied: list[tuple[int, list[int]]] = []
        self.step = 0

    def go_on(self, *, alone: bool = False) -> Decision | None:
        """Train a step and take what is applied after it."""
        if not alone:
            dist.barrier()  # as a step's gradients do
        self.step += 1
        taken = None if self.requests.pass_by() else self.requests.take(self.step)
        if taken is not None:
            self.applied.append((self.step, to_weights(taken)))
        return taken

    def until_stop(self) -> None:
        while not ((taken := self.go_on()) and taken.should_training_stop):
            pass

    def result(self) -> dict[str, Any]:
        self.requests.close()
        return {
            "applied": self.applied,
            "said": self.said.take(),
            "meetings": self.agreement.meetings,
            "threads": [t.name for t in threading.enumerate() if t.name.startswith("asynccb")],
        }


def post_by_turns(rank: int, world: int, seed: str) -> dict[str, Any]:
    """Post from all ranks at random steps; the last one, of a drawn rank, stops all."""
    draw = random.Random(seed)
    loop = Loop()
    for wish in [SAVE, Decision(should_log=True), Decision(should_evaluate=True), STOP]:
        poster, pause = draw.randrange(world), draw.randrange(50)
        for _ in range(pause):
            loop.go_on()
        if rank == poster:
            loop.requests.post(wish)
        while loop.go_on() is None:
            pass
    return loop.result()


def post_all_at_once(rank: int, world: int) -> dict[str, Any]:
    """Post from all ranks in one step, and from several threads of each."""
    loop = Loop()
    loop.go_on()
    threads = [threading.Thread(target=loop.requests.post, args=(SAVE,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if rank == 1:
        loop.requests.post(STOP)
    loop.until_stop()
    return loop.result()


def post_from_a_signal(rank: int, world: int) -> dict[str, Any]:
    loop = Loop()
    signal.signal(signal.SIGUSR1, lambda *_: loop.requests.post(STOP))
    if rank == 1:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    loop.until_stop()
    return loop.result()


def post_in_a_forked_child(rank: int, world: int) -> dict[str, Any]:
    """Ask for a save in a forked child, where it is nobody's request, and then for the stop."""
    loop = Loop()
    loop.go_on()
    child = os.fork()
    if child == 0:
        loop.requests.post(SAVE)
        os._exit(0)
    os.waitpid(child, 0)
    if rank == 0:
        loop.requests.post(STOP)
    loop.until_stop()
    return loop.result()


def be_deaf(rank: int, world: int) -> dict[str, Any]:
    """Have one rank without a dispatcher, as where only rank 0 was given one."""
    if rank == 1:
        dist.barrier()
        return {}
    loop = Loop(limit=2.0)
    loop.requests.post(STOP)
    try:
        for _ in count():
            loop.go_on(alone=True)
    except AgreementError as error:
        dist.barrier()
        return loop.result() | {"error": str(error)}


def leave_early(rank: int, world: int) -> dict[str, Any]:
    """Ask for the stop, on rank 0, when rank 1 has ended its run."""
    loop = Loop()
    loop.go_on()
    if rank == 1:
        loop.requests.close()
    dist.barrier()
    if rank == 0:
        loop.requests.post(STOP)
    if rank != 1:
        eventually(lambda: loop.go_on(alone=True) or loop.said.texts)
    dist.barrier()
    return loop.result()


def lose_the_store(rank: int, world: int) -> dict[str, Any]:
    """Ask for the stop when the rank that keeps the store has been killed."""
    loop = Loop()
    loop.go_on()
    dist.barrier()
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    loop.requests.post(STOP)
    eventually(lambda: loop.go_on(alone=True) or loop.said.texts)
    return loop.result()


def post_at_the_end(rank: int, world: int) -> dict[str, Any]:
    """Ask for a save after the last boundary."""
    loop = Loop()
    loop.go_on()
    loop.requests.post(SAVE)
    return loop.result()


def stay(rank: int, world: int) -> dict[str, dict[str, Any]]:
    """Do in turn all in which no rank is lost."""
    return {
        "by turns": post_by_turns(rank, world, "1"),
        "at once": post_all_at_once(rank, world),
        "signal": post_from_a_signal(rank, world),
        "fork": post_in_a_forked_child(rank, world),
        "early": leave_early(rank, world),
        "end": post_at_the_end(rank, world),
        "deaf": be_deaf(rank, world),  # last: rank 1 has opened one board less from here on
    }
