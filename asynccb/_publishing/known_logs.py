"""
Logs of a known form, in plain Python; `_compiled/hot.c` has the same class.

A form is known once a log of it has gone the general way. The next logs of the form go to the
companion as brief frames, 8 bytes a number, and into the history. Promises: a method that returns
False has changed nothing, and the general way does the same; both ways write the same values.

The compiled class also takes the tensors of a device. Here they go the general way.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from asynccb._compiled.shared import Shared
from asynccb._ring.frame_writer import FrameWriter
from asynccb._ring.record import HISTORY_BIT
from asynccb._ring.slots import Kind
from asynccb._state.control import FLAGS

_PER_STEP: Final = ("should_save", "should_evaluate", "should_log")
_WHOLE: Final = range(-(1 << 63), 1 << 63)
_LAST_STEP: Final = (1 << 63) - 2


class How(IntEnum):
    """The way from a value to a number; `hot.c` has the same numbers."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2
    HOST_TENSOR = 3
    DEVICE_TENSOR = 4


class Dtype(NamedTuple):
    """A dtype of torch, as DLPack describes it."""

    name: str
    code: int
    bits: int
    kind: Kind


DTYPES: Final = (
    Dtype("torch.float32", 2, 32, Kind.FLOAT),
    Dtype("torch.float64", 2, 64, Kind.FLOAT),
    Dtype("torch.float16", 2, 16, Kind.FLOAT),
    Dtype("torch.bfloat16", 4, 16, Kind.FLOAT),
    Dtype("torch.float8_e4m3fn", 10, 8, Kind.FLOAT),
    Dtype("torch.float8_e5m2", 12, 8, Kind.FLOAT),
    Dtype("torch.float8_e4m3fnuz", 11, 8, Kind.FLOAT),
    Dtype("torch.float8_e5m2fnuz", 13, 8, Kind.FLOAT),
    Dtype("torch.int8", 0, 8, Kind.INTEGER),
    Dtype("torch.int16", 0, 16, Kind.INTEGER),
    Dtype("torch.int32", 0, 32, Kind.INTEGER),
    Dtype("torch.int64", 0, 64, Kind.INTEGER),
    Dtype("torch.uint8", 1, 8, Kind.INTEGER),
    Dtype("torch.uint16", 1, 16, Kind.INTEGER),
    Dtype("torch.uint32", 1, 32, Kind.INTEGER),
    Dtype("torch.uint64", 1, 64, Kind.INTEGER),
    Dtype("torch.bool", 6, 8, Kind.BOOLEAN),
)
"""The dtypes by their number in `gather.cu`."""
ON_HOST: Final = frozenset(range(4)) | frozenset(range(8, 17))
"""The dtypes whose numbers `hot.c` reads in host memory: all but the floats of 8 bits."""


class Entry(NamedTuple):
    """One value of a form."""

    name: str
    type: type
    how: How
    plain: bool = True
    """Whether the value is exactly a float, an int or a bool of Python."""
    code: int = 0
    """Type code of DLPack, of a tensor."""
    bits: int = 0
    dtype: int = 0
    """Number of the dtype in `gather.cu`, of a tensor."""
    place: int = 0
    """Slot of a device's value within its log."""
    device: int = -1


class Form:
    """The form of similar logs."""

    def __init__(self, number: int, entries: tuple[Entry, ...], layout: Any, slots: int) -> None:
        """Take the form's number in the ring's table, and what is known of each value."""
        self.number = number
        self.entries = entries
        self.slots = slots

    def take(self, logs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return logs of this form as plain numbers, else None."""
        if self.slots or [*logs] != [entry.name for entry in self.entries]:
            return None
        numbers: dict[str, Any] = {}
        for entry in self.entries:
            value = logs[entry.name]
            if type(value) is not entry.type:
                return None
            number = value if entry.plain else _number(value, entry)
            if number is None or (type(number) is int and number not in _WHOLE):
                return None
            numbers[entry.name] = number
        return numbers


class KnownLogs:
    """The short way of one run's steps and logs."""

    def __init__(
        self,
        shared: Shared,
        frames: FrameWriter,
        emitter: dict[str, Any],
        faults: list[Any],
        state_type: type,
        control_type: type,
        slow_names: tuple[str, ...],
        entry_type: type,
        queue_type: type[deque[Any]],
    ) -> None:
        """
        Write to the frames; `emitter` are the attributes of the emitter, which owns them.

        States and controls of other types go the general way, as does everything while there are
        `faults`. `slow_names` are the state's fields that a record contains only after a change.
        """
        self._shared = shared
        self._frames = frames
        self._emitter = emitter
        self._faults = faults
        self._types = state_type, control_type
        self._slow_names = slow_names
        self._forms: dict[tuple[Any, ...], Form] = {}
        self._step_route: Any = None
        self._log_route: Any = None

    # -- called for each log -----------------------------------------------------------------------

    def step(self, logs: Any) -> bool:
        """Count a step, pass its boundary, and log, unless `logs` is None; return whether."""
        begin = time.time_ns()
        if logs is not None and type(logs) is not dict:
            return False
        step = self._next_step(1)
        if step is None or not self._may_step(step):
            return False
        if logs is not None and not self._log(logs, step, begin, _PER_STEP, history=True):
            return False
        control = self._emitter["control"]
        for flag in _PER_STEP:
            setattr(control, flag, False)
        self._emitter["state"].global_step = step
        if self._emitter["routes"]["on_step_end"] is not None:
            self._shared.last_boundary = step
        return True

    def log(self, logs: Any) -> bool:
        """Log, and append to the history; return whether."""
        return self._log_now(logs, history=True)

    def emit(self, extra: dict[str, Any]) -> bool:
        """Log without the history, if `logs` are all of an event's keywords; return whether."""
        return len(extra) == 1 and self._log_now(extra.get("logs"), history=False)

    # -- called now and then -----------------------------------------------------------------------

    def learn(self, key: tuple[Any, ...], form: Form) -> None:
        """Know a form by the names and types of its logs: (name, type, name, type, …)."""
        self._forms[key] = form

    def learn_routes(self, step: Any, log: Any) -> None:
        """Know a route of `on_step_end` that is only a boundary, and a direct one of `on_log`."""
        self._step_route, self._log_route = step, log

    def forget(self) -> None:
        """Forget all forms."""
        self._forms.clear()

    def close(self) -> None:
        """Decline everything from now on, and let go of the run."""
        self._emitter = {"state": None, "control": None, "routes": {}, "_awaits_begin": True}
        self.forget()

    # -- inside ------------------------------------------------------------------------------------

    def _log_now(self, logs: Any, *, history: bool) -> bool:
        begin = time.time_ns()
        step = self._next_step(0)
        if type(logs) is not dict or step is None:
            return False
        if not self._log(logs, step, begin, ("should_log",), history=history):
            return False
        self._emitter["control"].should_log = False
        return True

    def _next_step(self, add: int) -> int | None:
        """Return the state's step plus `add`; None if the state or the control is of others."""
        state, control = self._emitter["state"], self._emitter["control"]
        if (type(state), type(control)) != self._types:
            return None
        step = state.global_step
        return step + add if type(step) is int and 0 <= step < _LAST_STEP else None

    def _may_step(self, step: int) -> bool:
        emitter, shared = self._emitter, self._shared
        if emitter["_awaits_begin"] is not False or type(emitter["routes"]) is not dict:
            return False
        if 0 < emitter["_max_steps"] <= step:
            return False
        route = emitter["routes"].get("on_step_end", self)
        return route is None or (
            route is self._step_route
            and shared.quiet
            and step >= shared.last_boundary
            and not self._faults
        )

    def _may_log(self, begin: int) -> bool:
        routes, route = self._emitter["routes"], self._log_route
        return (
            route is not None
            and type(routes) is dict
            and routes.get("on_log") is route
            and begin < self._shared.next_look
            and not self._shared.held
            and not self._faults
        )

    def _log(
        self,
        logs: dict[Any, Any],
        step: int,
        begin: int,
        cleared: tuple[str, ...],
        *,
        history: bool,
    ) -> bool:
        state = self._emitter["state"].__dict__
        epoch = state["epoch"] or 0.0
        if not self._may_log(begin) or type(epoch) is not float or not self._is_unchanged(state):
            return False
        flags = self._read_flags(cleared)
        form = self._forms.get(tuple(part for key in logs for part in (key, type(logs[key]))))
        numbers = None if form is None else form.take(logs)
        if flags is None or form is None or numbers is None:
            return False
        entries, shared = state["log_history"], self._shared
        if type(entries) is not list or (history and state.get("_late")):
            return False
        if shared.wants_history and not (
            entries is shared.history and len(entries) == shared.sent and not state.get("_late")
        ):
            return False
        flags |= HISTORY_BIT if history else 0
        packed = b"".join(map(_pack, numbers.values()))
        if not self._frames.write_brief(form.number, begin, step, flags, 0, epoch, packed, False):
            return False
        if history:
            entries.append({**numbers, "step": step})
            shared.sent += 1
        shared.events += 1
        shared.busy += time.time_ns() - begin
        return True

    def _is_unchanged(self, state: dict[str, Any]) -> bool:
        seen = self._shared.seen
        return bool(seen) and all(
            state[name] is value for name, value in zip(self._slow_names, seen, strict=True)
        )

    def _read_flags(self, cleared: tuple[str, ...]) -> int | None:
        control, bits = self._emitter["control"], 0
        for place, name in enumerate(FLAGS):
            flag = False if name in cleared else getattr(control, name)
            if type(flag) is not bool:
                return None
            bits |= flag << place
        return bits


def _number(value: Any, entry: Entry) -> Any:
    """Return a number of NumPy, or of a tensor in host memory, as one of Python."""
    if entry.how != How.HOST_TENSOR:
        return (float, int, bool)[entry.how](value)
    if value.ndim or value.device.type != "cpu" or str(value.dtype) != DTYPES[entry.dtype].name:
        return None
    return value.item()


def _pack(number: Any) -> bytes:
    return struct.pack("<d" if type(number) is float else "<q", number)
