"""A progress bar of the run and of each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.base import TrainerCallback
from asynccb.callbacks.display import Arriving, readable

if TYPE_CHECKING:
    from tqdm.auto import tqdm

REFRESH = 0.1
"""Seconds between two drawings of the bar; a step in between costs a look at the clock."""


class ProgressCallback(TrainerCallback):
    """
    Show progress bars and write logs above them, on the first process only.

    A text longer than `max_str_len` characters is replaced by a note of its length. A step costs
    a fraction of a microsecond: the bar is drawn at most ten times a second, and no thread
    watches it. Different from transformers, a resumed run's bar begins at the resumed step, and
    hooks without an `on_train_begin` before them do nothing.
    """

    def __init__(self, max_str_len: int = 100) -> None:
        if isinstance(max_str_len, bool) or not isinstance(max_str_len, int) or max_str_len < 0:
            raise ConfigurationError(
                f"max_str_len is {max_str_len!r}; it takes a number of characters from 0 on"
            )
        self.max_str_len = max_str_len
        self.training_bar: tqdm[Any] | None = None
        self.prediction_bar: tqdm[Any] | None = None
        self.current_step = 0
        self._draw_at = 0.0
        self._arriving = Arriving()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Open the bar; one that an interrupted training left is closed."""
        self._close()
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = _bar_class()(
                total=state.max_steps or None,
                initial=state.global_step,
                dynamic_ncols=True,
                mininterval=0,
                miniters=1,
            )

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Advance by the steps since the bar was last drawn, if it is time to."""
        if self.training_bar is not None and (now := monotonic()) >= self._draw_at:
            self._draw_at = now + REFRESH
            self._advance(state.global_step)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Advance the bar of the evaluation, which exists only where its length is known."""
        if not state.is_world_process_zero:
            return
        if self.prediction_bar is None:
            length = _length(eval_dataloader)
            if length is None:
                return
            self.prediction_bar = _bar_class()(
                total=length, leave=self.training_bar is None, dynamic_ncols=True, miniters=1
            )
        self.prediction_bar.update(1)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Close the bar of the evaluation."""
        self._close_prediction_bar()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Close the bar of the prediction."""
        self._close_prediction_bar()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the logs above the bar; outside of a training nothing is written."""
        if self.training_bar is not None and logs is not None:
            self._arriving.add(logs)
            for each in self._arriving.here():
                self._write(each)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Show the last step, and the logs that were on their way, and close the bars."""
        for each in self._arriving.all():
            self._write(each)
        self._advance(state.global_step)
        self._close()

    def _advance(self, step: int) -> None:
        if self.training_bar is not None and step > self.current_step:
            self.training_bar.update(step - self.current_step)
            self.current_step = step

    def _write(self, logs: Mapping[str, Any]) -> None:
        if self.training_bar is not None:
            shown = {name: self._shorten(value) for name, value in readable(logs).items()}
            self.training_bar.write(str(shown))

    def _shorten(self, value: Any) -> Any:
        if not isinstance(value, str) or len(value) <= self.max_str_len:
            return value
        return f"[text of {len(value)} characters, more than max_str_len={self.max_str_len}]"

    def _close(self) -> None:
        self._close_prediction_bar()
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None


@cache
def _bar_class() -> type[tqdm[Any]]:
    """Return tqdm for this terminal or notebook, without its watching thread."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # at run time it takes no parameter
        monitor_interval = 0  # the thread would wake beside the training; miniters=1 needs none

    return Bar


def _length(dataloader: Any) -> int | None:
    try:
        return len(dataloader)
    except TypeError:
        return None
