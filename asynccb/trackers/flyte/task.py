"""
The Flyte task that a training runs in, for threads that are not its own (flytekit 1.16).

flytekit keeps the task's surroundings (its store, its checkpoint, its decks) in a context variable:
on a thread that was started by itself they are others, and what is saved or drawn there is lost
without a word. Promises: what is called through `FlyteTask` sees what the task's own thread saw;
where no task runs, flytekit is not imported.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class FlyteTask:
    """Hold what the thread that makes this sees of its task."""

    def __init__(self, checkpoint: Any, *, draws: bool, output: str | None) -> None:
        """Take the task's checkpoint or None, whether it has decks, and where its output goes."""
        self._seen = contextvars.copy_context()
        self.draws = draws
        self.output = output
        self._checkpoint = checkpoint

    @property
    def saves(self) -> bool:
        """Whether the platform has given the task a place for checkpoints."""
        return self._checkpoint is not None

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on this thread, with what the task's thread sees; blocks."""
        return self._seen.copy().run(function)  # a copy: one can be entered by one thread at a time

    def save(self, path: Path) -> None:
        """
        Upload a folder's content, or a file, beside what was uploaded before, over equal names.

        Not atomic; not from two threads at once. Raises what the store raises.
        """
        self.call(lambda: self._checkpoint.save(path))

    def restore(self) -> Path | None:
        """
        Download what an earlier attempt has uploaded, once, and return where it lies.

        None where there was no earlier attempt, or it has uploaded nothing. Raises what the store
        raises.
        """
        from flytekit.exceptions.user import FlyteDataNotFoundException

        try:
            found = self.call(lambda: self._checkpoint.restore())
        except FlyteDataNotFoundException:
            return None
        return None if found is None else Path(found)


def current_task() -> FlyteTask | None:
    """Return the task that runs on this thread, remote or local; None where there is none."""
    if "flytekit" not in sys.modules:  # a task is run by it
        return None
    import flytekit
    from flytekit.core.context_manager import FlyteContextManager

    execution = FlyteContextManager.current_context().execution_state
    if execution is None or execution.mode is None:
        return None
    surroundings = flytekit.current_context()
    try:
        checkpoint = surroundings.checkpoint
    except NotImplementedError:
        checkpoint = None
    return FlyteTask(
        checkpoint,
        draws=bool(surroundings.enable_deck),
        output=surroundings.output_metadata_prefix,
    )
