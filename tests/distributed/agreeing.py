"""What the ranks of `test_agreement.py` do; each returns what its rank saw."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from asynccb._ground.exceptions import AgreementError
from asynccb._state.control import Decision, to_weights
from asynccb.distributed.agreement import Agreement

NOTHING = to_weights(Decision())
SAVE = to_weights(Decision(should_save=True))
OPINIONS = (None, False, True)


def wishes_of(seed: object) -> Decision:
    """Return opinions drawn with a seed."""
    draw = random.Random(str(seed))
    return Decision(*(draw.choice(OPINIONS) for _ in range(5)))


def weights_of(seed: object) -> list[int]:
    return to_weights(wishes_of(seed))


def agree_often(rank: int, world: int) -> list[list[int]]:
    agreement = Agreement(limit=30.0)
    agreed = [agreement.agree(n, n * n, weights_of((rank, n))) for n in range(50)]
    assert agreement.meetings == 50
    agreement.close()
    return agreed


def error_of(agreement: Agreement, step: int = 7, schedule: int = 1) -> dict[str, Any]:
    """Return the error of a meeting that fails, in time."""
    begin = time.monotonic()
    try:
        agreement.agree(step, schedule, NOTHING)
    except AgreementError as error:
        assert time.monotonic() - begin < 2 * agreement.limit  # a hang, not a slow machine
        return {"error": str(error)}
    raise AssertionError("the ranks have agreed")


def lose_one(rank: int, world: int, lost: str, how: str, met: str) -> dict[str, Any]:
    """Lose a rank by a signal, before the first meeting or after it."""
    agreement = Agreement(limit=6.0)
    if met == "met":
        agreement.agree(1, 0, NOTHING)
    if rank == int(lost):
        os.kill(os.getpid(), signal.Signals[how])
    return error_of(agreement)


def fail_again(rank: int, world: int) -> list[Any]:
    agreement = Agreement(limit=6.0)
    agreement.agree(1, 0, NOTHING)
    first = error_of(agreement, step=2, schedule=rank)
    return [first, error_of(agreement, step=3)]


def differ(rank: int, world: int, step: int, schedule: int) -> dict[str, Any]:
    """Come to a step and a schedule of one's own, on rank 1."""
    agreement = Agreement(limit=6.0)
    agreement.agree(1, 0, NOTHING)
    mine = (step, schedule) if rank == 1 else (7, 1)
    return error_of(agreement, *mine)


def come_late(rank: int, world: int) -> list[int]:
    """Wait at a meeting for several looks at the board, until a rank comes after all."""
    agreement = Agreement(limit=12.0)
    agreement.agree(1, 0, NOTHING)
    if rank == 1:
        threading.Event().wait(2.0)  # what is tested is a delay
    return agreement.agree(2, 0, SAVE if rank == 1 else NOTHING)


def stand_still(rank: int, world: int, met: str) -> list[int]:
    """Stop rank 0, and its store, for longer than a look at the board may take."""
    agreement = Agreement(limit=30.0)
    assert agreement.board.rank == rank
    if met == "met":
        agreement.agree(1, 0, NOTHING)
    pid = torch.tensor([os.getpid()])
    dist.broadcast(pid, 0)
    if rank == 1:
        threading.Timer(4.0, os.kill, (int(pid), signal.SIGCONT)).start()
        os.kill(int(pid), signal.SIGSTOP)
    return agreement.agree(2, 0, SAVE if rank == 1 else NOTHING)


def agree_twice(rank: int, world: int) -> list[list[int]]:
    """Use two agreements in turns, one of them ended in between."""
    first, second = Agreement(limit=12.0), Agreement(limit=12.0)
    seen = [first.agree(1, 0, weights_of(rank)), second.agree(1, 5, weights_of(rank + 10))]
    first.close()
    seen.append(second.agree(2, 5, weights_of(rank + 20)))
    second.close()
    return seen


def be_interrupted(rank: int, world: int) -> dict[str, Any]:
    """Cut rank 0's wait short with Ctrl-C while rank 1 has not come."""
    agreement = Agreement(limit=120.0)  # longer than the test may last
    agreement.agree(1, 0, NOTHING)
    if rank == 1:
        threading.Event().wait(1.0)
        return error_of(agreement)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        agreement.agree(2, 0, NOTHING)
    except KeyboardInterrupt:
        return {"error": ""}
    raise AssertionError("Ctrl-C did nothing")


def outlive_the_group(rank: int, world: int) -> dict[str, Any]:
    """Go on alone, and close, when the process group was taken down."""
    agreement = Agreement(limit=12.0)
    agreement.agree(1, 0, NOTHING)
    dist.barrier()
    dist.destroy_process_group()
    wishes = SAVE if rank == 1 else NOTHING
    alone = agreement.agree(2, 0, wishes) is wishes
    agreement.close()
    return {"alone": alone}


def stay(rank: int, world: int) -> dict[str, Any]:
    """Do in turn all in which no rank is lost."""
    return {
        "often": agree_often(rank, world),
        "two": agree_twice(rank, world),
        "late": come_late(rank, world),
        "step differs": differ(rank, world, 9, 1),
        "schedule differs": differ(rank, world, 7, 2),
        "again": fail_again(rank, world),
        "outlived": outlive_the_group(rank, world),
    }
