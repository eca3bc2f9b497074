"""The callback that makes a run log, evaluate, save and stop as its arguments demand."""

from __future__ import annotations

from typing import Any

from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.base import TrainerCallback


class DefaultFlowCallback(TrainerCallback):
    """
    Sets the control's flags at the steps and epochs that the arguments ask for.

    It reads strategies from the arguments, and intervals from the state, which has them in whole
    steps. It runs before all other callbacks, which see its flags and may clear them.

    Differences from transformers: an interval of 0 is never due, an `eval_delay` of None means 0,
    and a `max_steps` of 0 means a run of unknown length, which is not stopped.
    """

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Set the flags that are due at this step, and at the last step the stop, too."""
        step = state.global_step
        last = 0 < state.max_steps <= step
        if args.logging_strategy == "steps" and _due(step, state.logging_steps):
            control.should_log = True
        if step == 1 and args.logging_first_step:
            control.should_log = True
        if (
            args.eval_strategy == "steps"
            and (last or _due(step, state.eval_steps))
            and (args.eval_delay or 0) <= step
        ):
            control.should_evaluate = True
        if args.save_strategy == "steps" and (last or _due(step, state.save_steps)):
            control.should_save = True
        if last:
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Set the flags that are due at the end of an epoch."""
        if args.logging_strategy == "epoch":
            control.should_log = True
        if args.eval_strategy == "epoch" and (args.eval_delay or 0) <= state.epoch:
            control.should_evaluate = True
        if args.save_strategy == "epoch":
            control.should_save = True
        return control


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
