"""A training that decides, and may kill itself in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
from deciding import lines_of, trace_of
from regression import Model, history, train

from asynccb import Trainer, TrainerCallback, decides
from asynccb.checkpoint import last_checkpoint


class Slow(TrainerCallback):
    """Ask for saves, evaluations and the end of an epoch, a few steps later."""

    @decides(lag=2)
    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(0.001 * (state.global_step % 3))
        control.should_save = state.global_step % 4 == 1
        if state.global_step == 11:
            control.should_epoch_stop = True

    @decides(lag=1)
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % 5 == 0:
            control.should_evaluate = True

    @decides(lag=0)
    async def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_epoch_stop = state.global_step == 16


class Dies(TrainerCallback):
    """Kill the process in the middle of a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.at and state.global_step + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def outcome(trainer: Trainer) -> dict[str, Any]:
    """Return weights, history and trace, the latter without what the clock said."""
    return {
        "weights": [value.item().hex() for value in trainer.model.state_dict().values()],
        "history": history(trainer),
        "trace": lines_of(trace_of(trainer.dispatcher)),
    }


def go_on(directory: Path, kill_at: int = 0) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one, and return what came of it."""
    trained = train(
        directory,
        Slow(),
        Dies(kill_at),
        model=Model(0.5),
        resume=last_checkpoint(directory),
        num_train_epochs=4,
        logging_steps=1,
        save_strategy="no",
    )
    return outcome(trained)
