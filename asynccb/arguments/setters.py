"""
The grouped setters of the training arguments.

They differ from transformers in three points. A setter has the same defaults as the fields. It
converts values as construction does. A bad value changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from asynccb.arguments.strategies import IntervalStrategy, SaveStrategy


class GroupedSetters:
    """
    Setters of one group of arguments each; an argument that is left out is set to its default.

    A setter does not check combinations of arguments, because groups are set one after another.
    Call `validate()` for that.
    """

    def _set(self, **values: Any) -> Self:
        """Set the values; if one of them is bad, raise and set none."""
        raise NotImplementedError

    def set_logging(
        self,
        strategy: IntervalStrategy | str = "steps",
        steps: float = 500,
        report_to: str | Sequence[str] | None = "all",
        level: str = "passive",
        first_step: bool = False,
        nan_inf_filter: bool = True,
        on_each_node: bool = True,
        replica_level: str = "warning",
    ) -> Self:
        """Set all arguments of logging."""
        return self._set(
            logging_strategy=strategy,
            logging_steps=steps,
            report_to=report_to,
            log_level=level,
            logging_first_step=first_step,
            logging_nan_inf_filter=nan_inf_filter,
            log_on_each_node=on_each_node,
            log_level_replica=replica_level,
        )

    def set_evaluate(
        self,
        strategy: IntervalStrategy | str = "no",
        steps: float = 500,
        batch_size: int = 8,
        accumulation_steps: int | None = None,
        delay: float | None = None,
        loss_only: bool = False,
    ) -> Self:
        """Set all arguments of evaluation; a `delay` of None means 0."""
        return self._set(
            eval_strategy=strategy,
            eval_steps=steps,
            per_device_eval_batch_size=batch_size,
            eval_accumulation_steps=accumulation_steps,
            eval_delay=delay,
            prediction_loss_only=loss_only,
        )

    def set_save(
        self,
        strategy: SaveStrategy | str = "steps",
        steps: float = 500,
        total_limit: int | None = None,
        on_each_node: bool = False,
    ) -> Self:
        """Set all arguments of checkpoints."""
        return self._set(
            save_strategy=strategy,
            save_steps=steps,
            save_total_limit=total_limit,
            save_on_each_node=on_each_node,
        )
