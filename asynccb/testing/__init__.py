"""
What users need to test their own callbacks.

    no_sync             fail at whatever waits for a CUDA device
    RecordingTracker    a tracker whose server is a file: what was delivered, in its order
    Recorded            one event in that file
    Clock               time that jumps: an hour's sleep takes none
    scripted, serving   an HTTP server on loopback, beside a test's own coroutine or in a thread,
                        that fails as its script says
    Script              an async function from `Request` to `Answer`; may raise `CutError`
    in_turn, silence    scripts: one answer after another; none ever

Torch is loaded with the first of them alone, so that the tracker can live in the companion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynccb.testing._clock import Clock
from asynccb.testing._recording import Recorded, RecordingTracker
from asynccb.testing._server import (
    Answer,
    CutError,
    Request,
    Script,
    ScriptedServer,
    in_turn,
    scripted,
    serving,
    silence,
)

if TYPE_CHECKING:
    from asynccb.testing._device import no_sync

__all__ = [
    "Answer",
    "Clock",
    "CutError",
    "Recorded",
    "RecordingTracker",
    "Request",
    "Script",
    "ScriptedServer",
    "in_turn",
    "no_sync",
    "scripted",
    "serving",
    "silence",
]


def __getattr__(name: str) -> Any:
    if name == "no_sync":
        from asynccb.testing._device import no_sync

        return no_sync
    raise AttributeError(f"module 'asynccb.testing' has no attribute {name!r}")
