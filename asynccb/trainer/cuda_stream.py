"""The Trainer's own CUDA stream, separate from the program's stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch


class Streams(Protocol):
    """The part of `torch.cuda` that makes streams and chooses among them."""

    def Stream(self, device: torch.device) -> Any:  # noqa: N802
        """Make a stream."""

    def current_stream(self, device: torch.device) -> Any:
        """Return the stream to which this thread sends its work."""

    def stream(self, stream: Any) -> AbstractContextManager[Any]:
        """Make a stream the current one of this thread, for the body."""


class OwnStream:
    """
    A stream for the Trainer's GPU work, in the thread that calls; does nothing on other devices.

    Copies that callbacks cause in that thread use the stream, too.
    """

    def __init__(self, device: torch.device, streams: Streams = torch.cuda) -> None:
        self._device = device
        self._streams = streams
        self._stream = streams.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run the body on the stream: after all work queued before it, before all work after."""
        if self._stream is None:
            yield
            return
        outer = self._streams.current_stream(self._device)
        self._stream.wait_stream(outer)
        try:
            with self._streams.stream(self._stream):
                yield
        finally:
            outer.wait_stream(self._stream)
