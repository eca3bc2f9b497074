"""A training that decides, and may kill itself in the middle."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import anyio

from asynccb import Trainer, TrainerCallback, decides
from asynccb.checkpoint import last_checkpoint
from tests.decisions.deciding import lines_of, trace_of
from tests.support.launching import be_killed
from tests.support.regression import Model, history, train


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


class Saved(TrainerCallback):
    """Ask, when a checkpoint is there, for the end of the epoch and evaluations, later."""

    @decides(lag=3)
    async def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(0.001 * (state.global_step % 3))
        control.should_epoch_stop = state.global_step == 19
        control.should_evaluate = True


class SavedNow(TrainerCallback):
    """Ask for the end of an epoch at once."""

    @decides(lag=0)
    async def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 7:
            control.should_epoch_stop = True


class SavedInline(TrainerCallback):
    """End an epoch when a checkpoint is there, as a `def` hook."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 15:
            control.should_epoch_stop = True


class Dies(TrainerCallback):
    """Kill the process at an event of a step: in its middle, or when its checkpoint is there."""

    def __init__(self, at: int, event: str = "on_pre_optimizer_step") -> None:
        before_the_step_counts = event == "on_pre_optimizer_step"

        def die(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if at and state.global_step + before_the_step_counts == at:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, event, die)


STEPS = 38
SAVES = range(3, 36, 4)
EPOCHS = (7, 13, 15, 22, 30, 38)
"""Steps of the whole run: all, those that are saved, and those after which an epoch ends."""


def outcome(trainer: Trainer) -> dict[str, Any]:
    """Return weights, history and trace, the latter without what the clock said."""
    return {
        "weights": [value.item().hex() for value in trainer.model.state_dict().values()],
        "history": history(trainer),
        "trace": lines_of(trace_of(trainer.dispatcher)),
    }


def go_on(
    directory: Path, kill_at: int = 0, event: str = "on_pre_optimizer_step"
) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one, and return what came of it."""
    trained = train(
        directory,
        Slow(),
        Saved(),
        SavedNow(),
        SavedInline(),
        Dies(kill_at, event),
        model=Model(0.5),
        resume=last_checkpoint(directory),
        num_train_epochs=6,
        logging_steps=1,
        save_strategy="no",
    )
    return outcome(trained)


def kill_and_go_on(directory: Path, step: int, event: str) -> dict[str, Any]:
    """Train in a process that kills itself there, go on here, and return what came of it."""
    be_killed("train_deciding", directory, step, event)
    return go_on(directory)


def draw_kill(chance: random.Random) -> tuple[int, str]:
    """Draw a step and an event, but for one: what a `def` hook wants on a save is lost in it."""
    event = chance.choice(["on_pre_optimizer_step", "on_log", "on_save", "on_epoch_end"])
    if event == "on_epoch_end":
        return chance.choice(EPOCHS), event
    if event == "on_save":
        return chance.choice([step for step in SAVES if step != 15]), event
    return chance.randrange(2, STEPS), event
