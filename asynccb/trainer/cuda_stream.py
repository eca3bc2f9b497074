"""A CUDA stream of the Trainer's own, apart from the program's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OwnStream:
    """Queue GPU work on one stream; do nothing on other devices."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Queue what is inside after all that was queued before, and before all that follows."""
        if self._stream is None:
            yield
            return
        outer = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outer.wait_stream(self._stream)
