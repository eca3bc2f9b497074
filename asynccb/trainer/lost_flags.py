"""
Warnings about flags that a hook sets but that are cleared before the loop acts on them.

Promises: each flag is warned of once; while no flag is set, a step costs three attribute reads on
the control.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("asynccb")


class LostFlags:
    """A check, just before flags are cleared, that the loop has acted on them."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def before_step(self, control: Any, step: int, last_logged: int) -> None:
        """Check the flags that the begin of a step clears; `step` is the number of steps done."""
        if not (control.should_log or control.should_evaluate or control.should_save):
            return
        if control.should_log and (step == 0 or step > last_logged):  # else it was logged
            self._say("should_log", step)
        for name in ("should_evaluate", "should_save"):
            if getattr(control, name):
                self._say(name, step)

    def before_first_epoch(self, control: Any) -> None:
        """Check the flag that the begin of the first epoch clears."""
        if control.should_epoch_stop:
            self._say("should_epoch_stop", 0)

    def _say(self, name: str, step: int) -> None:
        if name in self._said:
            return
        self._said.add(name)
        where = "on_epoch_begin" if name == "should_epoch_stop" else "on_step_end"
        logger.warning(
            "control.%s was set after step %d, but it is cleared before the loop acts on it; set "
            "it in %s, for example, or in an async hook that decides (reported once)",
            *(name, step, where),
        )
