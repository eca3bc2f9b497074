"""The callback that stops a run when its metric no longer improves."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import ExportableState, TrainerState
from asynccb.arguments.strategies import IntervalStrategy
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.base import TrainerCallback

logger = logging.getLogger("asynccb")


class EarlyStoppingCallback(TrainerCallback, ExportableState):
    """
    Stops a run after `early_stopping_patience` evaluations in a row without improvement.

    An evaluation is an improvement if its metric is better than `state.best_metric`, as it was
    before this evaluation, by more than `early_stopping_threshold`. An equal value or NaN is not an
    improvement. Every better value updates the best metric itself, however small the gain. The
    callback asks for the stop at the evaluation, independently of saves.

    Differences from transformers:

    * `on_train_begin` raises `ConfigurationError` if `metric_for_best_model` or an evaluation
      strategy is missing.
    * The counter is reset in a run that starts at step 0.
    * A NaN at the first evaluation counts, too.
    * A patience of 0, which would stop at an improvement, is refused.
    * A threshold of None means 0.
    * A warning, once per run, reports an evaluation (of one of several datasets, say) that does not
      contain the metric.
    """

    agreed = True

    def __init__(
        self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0
    ) -> None:
        patience, threshold = early_stopping_patience, early_stopping_threshold
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ConfigurationError(
                f"early_stopping_patience is {patience!r}; it takes a whole number from 1 on"
            )
        if threshold is None:
            threshold = 0.0
        if not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
            raise ConfigurationError(
                f"early_stopping_threshold is {threshold!r}; it takes a finite number from 0 on"
            )
        self.early_stopping_patience = patience
        self.early_stopping_threshold = threshold
        self.early_stopping_patience_counter = 0
        self._warned = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check that evaluations and a metric are configured; reset the counter at step 0."""
        if args.metric_for_best_model is None:
            raise ConfigurationError(
                "EarlyStoppingCallback needs metric_for_best_model, which is None; set it to the "
                "name of a metric, for example 'loss'"
            )
        if args.eval_strategy == IntervalStrategy.NO:
            raise ConfigurationError(
                "EarlyStoppingCallback needs evaluations, but eval_strategy is 'no'; set it to "
                "'steps' or 'epoch'"
            )
        if not args.load_best_model_at_end:
            logger.warning(
                "EarlyStoppingCallback is used without load_best_model_at_end: the run will end "
                "with the last model, not with the best one"
            )
        if state.global_step == 0:
            self.early_stopping_patience_counter = 0
        self._warned = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count the evaluation; ask for the stop if the counter has reached the patience."""
        name = args.metric_for_best_model or "loss"
        name = name if name.startswith("eval_") else f"eval_{name}"
        value = (metrics or {}).get(name)
        if value is None:
            self._warn_once(name, metrics or {})
            return
        self.check_metric_value(args, state, control, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def check_metric_value(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metric_value: float,
    ) -> None:
        """
        Set the counter to 0 if the value is an improvement, else add 1.

        Waits for the device if the value is a tensor there.
        """
        value, best = float(metric_value), state.best_metric
        if self._improves(value, best, greater_is_better=bool(args.greater_is_better)):
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1

    def _improves(self, value: float, best: float | None, *, greater_is_better: bool) -> bool:
        if best is None:
            return not math.isnan(value)
        gain = value - best if greater_is_better else best - value
        return gain > self.early_stopping_threshold

    def _warn_once(self, name: str, metrics: Mapping[str, Any]) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "EarlyStoppingCallback needs the metric %s, which an evaluation does not contain "
                "(it contains %s); such evaluations are not counted",
                name,
                ", ".join(metrics),
            )

    def state(self) -> dict[str, Any]:
        """Return the settings and the counter."""
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }
