"""Asking a run for something from outside its hooks' control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import FLAGS, Decision


class Requesting:
    """Carry requests to one run; a copy or a pickle of it belongs to none."""

    def __init__(self, post: Callable[[Decision], None] | None = None) -> None:
        """Take what posts a request, from any thread or signal; None belongs to no run."""
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
        Ask for flags: from any thread, a signal, a coroutine, at any time.

        They are set at a boundary (`on_step_end`) soon, on all ranks at the same one, and traced;
        no lock is taken and nothing is waited for. Raises `ConfigurationError` for a request of
        nothing and for a callback that belongs to no run, `ClosedError` after the run's `close`.
        """
        given = (should_training_stop, should_epoch_stop, should_save, should_evaluate, should_log)
        asked = [True if flag else None for flag in given]
        if not any(asked):
            raise ConfigurationError(
                f"nothing is requested; set at least one of {', '.join(FLAGS)} to True"
            )
        if self._post is None:
            raise ConfigurationError(
                "there is no run to ask: a callback can request something once it was added to a "
                "dispatcher or a Trainer"
            )
        self._post(Decision(*asked))

    @property
    def is_connected(self) -> bool:
        """Whether there is a run to ask."""
        return self._post is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return Requesting, ()

    def connect(self, callback: Any) -> None:
        """Make this a callback's `request`, unless the callback has something else of that name."""
        if isinstance(getattr(callback, "request", None), Requesting):
            object.__setattr__(callback, "request", self)  # also where it is a frozen dataclass
