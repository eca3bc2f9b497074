"""The callback that shows a progress bar of the run and of each evaluation."""

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
"""Seconds between two drawings of the bar; a step in between costs one reading of the clock."""


class ProgressCallback(TrainerCallback):
    """
    Shows progress bars and writes logs above them, on the first process only.

    A text longer than `max_str_len` characters is replaced by a note of its length. A step costs
    a fraction of a microsecond: the bar is drawn at most ten times a second, and tqdm's monitor
    thread is off. Unlike in transformers, a resumed run's bar starts at the resumed step, and hooks
    do nothing before the first `on_train_begin`.
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
        """Open the bar, after closing the bar of an interrupted training."""
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
        """Draw the bar at the current step, if it was last drawn `REFRESH` seconds ago or more."""
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
        """Advance the bar of the evaluation, which exists only if its length is known."""
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
        """Write the logs above the bar; outside of a training, do nothing."""
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
        """Write the logs whose numbers had not arrived, show the last step, and close the bars."""
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
    """Return the tqdm class for this terminal or notebook, without its monitor thread."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # tqdm is not generic at run time
        # The thread would wake beside the training, and with miniters=1 it is not needed.
        monitor_interval = 0

    return Bar


def _length(dataloader: Any) -> int | None:
    try:
        return len(dataloader)
    except TypeError:
        return None
