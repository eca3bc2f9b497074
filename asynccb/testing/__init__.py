"""
What users need to test their own callbacks.

    no_sync             fail at whatever waits for a CUDA device
    RecordingTracker    a tracker whose server is a file: what was delivered, in its order
    Recorded            one event in that file

Torch is loaded with the first of them alone, so that the tracker can live in the companion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynccb.testing._recording import Recorded, RecordingTracker

if TYPE_CHECKING:
    from asynccb.testing._device import no_sync

__all__ = ["Recorded", "RecordingTracker", "no_sync"]


def __getattr__(name: str) -> Any:
    if name == "no_sync":
        from asynccb.testing._device import no_sync

        return no_sync
    raise AttributeError(f"module 'asynccb.testing' has no attribute {name!r}")
