"""
Ending a training cleanly on SIGTERM, which a cluster sends before it takes the machine away.

Promises: on the first signal, a checkpoint is saved and the training stops at the end of the step,
on all ranks. Afterwards the previous signal handler is restored.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asynccb._ground.exceptions import ConfigurationError
from asynccb.callbacks.request import Requesting

logger = logging.getLogger("asynccb")


@contextmanager
def saving_on_signal(wanted: bool, request: Requesting) -> Iterator[None]:
    """
    Turn SIGTERM into a request to save and stop, if `wanted`.

    Raises `ConfigurationError` outside the main thread, because Python delivers signals only there.
    """
    if not wanted:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "enable_jit_checkpoint=True, but train() does not run on the main thread, and Python "
            "delivers signals only there; train on the main thread, or leave it out"
        )

    def ask(number: int, frame: Any) -> None:
        request(should_save=True, should_training_stop=True)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
