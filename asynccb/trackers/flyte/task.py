"""
Use the Flyte task that a training runs in from threads other than the task's own (flytekit 1.16).

flytekit keeps the task's surroundings (its store, its checkpoint, its decks) in a context variable.
A new thread has different surroundings, and files saved or decks drawn there are silently lost.
Promises: a function called through `FlyteTask` sees the same surroundings as the task's own thread.
If no task runs, flytekit is not imported.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class FlyteTask:
    """The task's surroundings, copied from the thread that creates the instance."""

    def __init__(self, checkpoint: Any, *, draws: bool, output: str | None) -> None:
        """
        Copy the surroundings of this thread, and use the task's checkpoint, if any.

        `draws` is true if the task has decks; `output` is the place of the task's output.
        """
        self._seen = contextvars.copy_context()
        self.draws = draws
        self.output = output
        self._checkpoint = checkpoint

    @property
    def saves(self) -> bool:
        """Whether the platform provides a place for the task's checkpoints."""
        return self._checkpoint is not None

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on this thread, with the surroundings of the task's thread; blocks."""
        return self._seen.copy().run(function)  # a copy, since two threads cannot enter the same

    def save(self, path: Path) -> None:
        """
        Upload a folder's content, or a file; overwrite uploads with the same names, keep others.

        Not atomic, and not safe from two threads at once. Raises the store's errors.
        """
        self.call(lambda: self._checkpoint.save(path))

    def restore(self) -> Path | None:
        """
        Download the uploads of an earlier attempt, once, and return their path.

        Return None if no earlier attempt has uploaded anything. Raises the store's errors.
        """
        from flytekit.exceptions.user import FlyteDataNotFoundException

        try:
            found = self.call(lambda: self._checkpoint.restore())
        except FlyteDataNotFoundException:
            return None
        return None if found is None else Path(found)


def current_task() -> FlyteTask | None:
    """Return the task that runs on this thread, remotely or locally; None outside a task."""
    if "flytekit" not in sys.modules:  # flytekit runs every task
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
