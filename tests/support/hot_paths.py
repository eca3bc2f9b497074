"""Both ways of the hot path: compiled, and in plain Python."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from asynccb._companion.landing import Arrivals
from asynccb._compiled.load import load_compiled, make_shared
from asynccb._journal.writer import split_frames
from asynccb._publishing.log_forms import LogForms
from asynccb._ring.frame import HEADER
from asynccb._ring.ring import RingReader, RingWriter
from asynccb._staging.staging import Staging
from asynccb._state.control import TrainerControl
from asynccb._state.snapshot import ChangeTracker
from asynccb._state.trainer_state import TrainerState

FAR = 1 << 62
"""A time of the next look that never comes."""


def choose(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the runs of a test use one way; skip the compiled one where it is not installed."""
    if way == "plain":
        monkeypatch.setenv("ASYNCCB_PURE", "1")
        return
    monkeypatch.delenv("ASYNCCB_PURE", raising=False)
    if load_compiled() is None:
        pytest.skip("the package was installed without a compiler")


@dataclass(frozen=True)
class Route:
    """A route of the two events, as far as known logs look at it."""

    name: str


class Loop:
    """A run's known logs with all that they look at, and no companion."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        self.shared = make_shared()
        self.ring = RingWriter(capacity, checked=False)
        self.state, self.control = TrainerState(), TrainerControl()
        self.faults: list[Any] = []
        self.emitter: dict[str, Any] = {
            "state": self.state,
            "control": self.control,
            "routes": {"on_log": Route("log"), "on_step_end": Route("step")},
            "_awaits_begin": False,
            "_max_steps": 0,
        }
        self.staging = Staging(
            lambda: self.ring.slots, lambda: self.shared.next_slot, "block", self.shared
        )
        self.forms = LogForms(self.shared, self.ring, self.staging, self.emitter, self.faults)
        self.known = self.forms.known
        routes = self.emitter["routes"]
        self.known.learn_routes(routes["on_step_end"], routes["on_log"])
        ChangeTracker(self.shared).changes(self.state)
        self.shared.next_look, self.shared.quiet = FAR, True

    def frames(self) -> bytes:
        """Return all frames that are written."""
        reader = RingReader(os.dup(self.ring.fd))
        frames, _, _ = reader.read(Arrivals(reader.slots, reader.forms))
        reader.close()
        return frames

    def records(self) -> list[list[Any]]:
        frames = self.frames()
        starts = [(start, start - HEADER.size) for _, start, _ in split_frames(frames)]
        return [
            msgspec.msgpack.decode(frames[start : start + HEADER.unpack_from(frames, at)[0]])
            for start, at in starts
        ]

    def close(self) -> None:
        self.forms.close()
        self.ring.close()
