"""
Tools for users to test their own callbacks.

    no_sync             fails if code waits for a CUDA device
    RecordingTracker    a tracker whose server is a file: the delivered events, in order
    Recorded            one event in that file
    Clock               a clock that jumps: an hour's sleep takes no time
    scripted, serving   an HTTP server on loopback that answers or fails as its script says, in the
                        test's own event loop or in a thread
    Script              an async function from `Request` to `Answer`; may raise `CutError`
    in_turn, silence    scripts: answer in turn; never answer

Only `no_sync` loads torch, so that the tracker can live in the companion.

May import: _ground, trackers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.testing.clock import Clock
    from asynccb.testing.no_sync import no_sync
    from asynccb.testing.recording_tracker import Recorded, RecordingTracker
    from asynccb.testing.server import (
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Answer": "server",
        "Clock": "clock",
        "CutError": "server",
        "Recorded": "recording_tracker",
        "RecordingTracker": "recording_tracker",
        "Request": "server",
        "Script": "server",
        "ScriptedServer": "server",
        "in_turn": "server",
        "no_sync": "no_sync",
        "scripted": "server",
        "serving": "server",
        "silence": "server",
    },
)
