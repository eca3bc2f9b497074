"""Requests to a run for flags, from any thread, without a hook's control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import FLAGS, Decision


class Requesting:
    """A sender of requests to one run; a copied or unpickled sender belongs to no run."""

    def __init__(self, post: Callable[[Decision], None] | None = None) -> None:
        """
        Store `post`, which sends a request to the run, from any thread or signal.

        With None there is no run to send requests to.
        """
        self._post = post

    def __call__(
        self,
        *,
        should_training_stop: bool = False,
        should_epoch_stop: bool = False,
        should_save: bool = False,
        should_evaluate: bool = False,
        should_log: bool = False,
    ) -> None:
        """
        Ask for flags, from any thread, signal or coroutine, at any time.

        The flags are set soon, at an `on_step_end` that is the same on all ranks, and the trace
        records them. The call takes no lock and never waits. Raises `ConfigurationError` if no flag
        is True or if the callback belongs to no run, and `ClosedError` after the run's `close`.
        """
        given = (should_training_stop, should_epoch_stop, should_save, should_evaluate, should_log)
        asked = [True if flag else None for flag in given]
        if not any(asked):
            raise ConfigurationError(
                f"nothing is requested; set at least one of {', '.join(FLAGS)} to True"
            )
        if self._post is None:
            raise ConfigurationError(
                "there is no run to ask: add the callback to a dispatcher or a Trainer before it "
                "requests something"
            )
        self._post(Decision(*asked))

    @property
    def is_connected(self) -> bool:
        """Whether requests reach a run."""
        return self._post is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return Requesting, ()

    def connect(self, callback: Any) -> None:
        """Make this the callback's `request`, unless its attribute `request` is something else."""
        if isinstance(getattr(callback, "request", None), Requesting):
            object.__setattr__(callback, "request", self)  # works for a frozen dataclass, too
