"""The callback that prints logs as plain lines, for runs without a progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.base import TrainerCallback
from asynccb.callbacks.display import Arriving, readable


class PrinterCallback(TrainerCallback):
    """
    Prints each log, once per machine, with floats to four digits and without `total_flos`.

    Unlike in transformers, the logs are not changed for other callbacks, and they may be None. If a
    log's numbers are still on the GPU, it is printed with a later log, or when the training ends.
    """

    def __init__(self) -> None:
        self._arriving = Arriving()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the logs, if this is its machine's first process."""
        if logs is not None and state.is_local_process_zero:
            self._arriving.add(logs)
            for each in self._arriving.here():
                print(readable(each))

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Print the logs whose numbers had not arrived."""
        for each in self._arriving.all():
            print(readable(each))
