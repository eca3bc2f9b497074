"""Callbacks that decide slowly, in a module that the companion can import."""

from __future__ import annotations

from typing import Any, Final

import anyio

from asynccb import TrainerCallback, decides


class Lagging(TrainerCallback):
    """Decides at the end of each step; applied at the end of the next step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @decides(lag=1)
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(self.seconds)
        if state.global_step < 0:
            control.should_training_stop = True


class Prompt(TrainerCallback):
    """Decides at the end of each step; applied at that step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @decides(lag=0)
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(self.seconds)
        if state.global_step < 0:
            control.should_training_stop = True


class LaggingInCompanion(Lagging):
    """The same in the companion."""

    placement = "process"


class PromptInCompanion(Prompt):
    """The same in the companion."""

    placement = "process"


DECIDERS: Final[dict[str, tuple[type[Lagging | Prompt], ...]]] = {
    "nobody": (),
    "lag=1, thread": (Lagging,),
    "lag=1, companion": (LaggingInCompanion,),
    "lag=0, thread": (Prompt,),
    "lag=0, companion": (PromptInCompanion,),
}
"""The deciding callbacks of each contender."""
