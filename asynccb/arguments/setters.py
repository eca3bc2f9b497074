"""
The grouped setters of the training arguments.

Different from transformers, a setter's defaults are those of the fields, what it sets is brought
into the form that construction gives it, and a bad value changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from asynccb.arguments.strategies import IntervalStrategy, SaveStrategy


class GroupedSetters:
    """
    Set the arguments of one group together: those not given go back to their defaults.

    Groups are set one after another; what they make together is checked by `validate()`, not here.
    """

    def _set(self, **values: Any) -> Self:
        """Set the values or, where one is bad, none of them."""
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
        """Set what belongs to logging, all of it."""
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
    ) -> Self:
        """Set what belongs to evaluation, all of it; None for `delay` is 0."""
        return self._set(
            eval_strategy=strategy,
            eval_steps=steps,
            per_device_eval_batch_size=batch_size,
            eval_accumulation_steps=accumulation_steps,
            eval_delay=delay,
        )

    def set_save(
        self,
        strategy: SaveStrategy | str = "steps",
        steps: float = 500,
        total_limit: int | None = None,
        on_each_node: bool = False,
    ) -> Self:
        """Set what belongs to checkpoints, all of it."""
        return self._set(
            save_strategy=strategy,
            save_steps=steps,
            save_total_limit=total_limit,
            save_on_each_node=on_each_node,
        )
