"""
Flags that a hook sets where the loop does not come by before they are cleared.

Promises: each is said, once per flag; while none is set, a step costs three looks at the control.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("asynccb")


class LostFlags:
    """Notice, just before flags are cleared, that nobody has looked at them."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def before_step(self, control: Any, step: int, last_logged: int) -> None:
        """Look at the flags that the begin of a step clears; `step` is the number of steps done."""
        if not (control.should_log or control.should_evaluate or control.should_save):
            return
        if control.should_log and (step == 0 or step > last_logged):  # else it is done already
            self._say("should_log", step)
        for name in ("should_evaluate", "should_save"):
            if getattr(control, name):
                self._say(name, step)

    def before_first_epoch(self, control: Any) -> None:
        """Look at the flag that the begin of the first epoch clears."""
        if control.should_epoch_stop:
            self._say("should_epoch_stop", 0)

    def _say(self, name: str, step: int) -> None:
        if name in self._said:
            return
        self._said.add(name)
        where = "on_epoch_begin" if name == "should_epoch_stop" else "on_step_end"
        logger.warning(
            "control.%s was set after step %d where nothing comes of it, and is cleared: set it in "
            "%s, say, or by an async hook that decides (said once)",
            *(name, step, where),
        )
