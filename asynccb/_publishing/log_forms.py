"""
The forms of logs: made from a log that went the general way, for the logs after it.

Promises: a log is looked at once for each form; a form is made again when a dtype or a device has
changed.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asynccb._compiled
from asynccb._compiled.load import load_compiled
from asynccb._compiled.shared import Shared
from asynccb._publishing.known_logs import DTYPES, ON_HOST, Entry, Form, How, KnownLogs
from asynccb._ring.ring import RingWriter
from asynccb._ring.slots import Kind, Part
from asynccb._staging.staged import Layout, StagedLog
from asynccb._staging.staged_logs import pack_layout
from asynccb._staging.staging import Staging
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import SLOW_FIELDS, TrainerState

if TYPE_CHECKING:
    from asynccb._staging.device import DeviceStaging

logger = logging.getLogger("asynccb")

_MOST: Final = 64
"""Most values of a known log."""
_KEPT: Final = 256
"""Most forms to remember."""
_PLAIN: Final = {float: How.FLOAT, int: How.INTEGER, bool: How.BOOLEAN}
_OF_NUMPY: Final = {"f": How.FLOAT, "i": How.INTEGER, "u": How.INTEGER, "b": How.BOOLEAN}
_KINDS: Final = (Kind.FLOAT, Kind.INTEGER, Kind.BOOLEAN)
"""The kinds of numbers by `How`."""


class LogForms:
    """The known logs of one run, and what is known of them."""

    def __init__(
        self,
        shared: Shared,
        ring: RingWriter,
        staging: Staging,
        emitter: dict[str, Any],
        faults: list[Any],
    ) -> None:
        """Begin with no forms; `emitter` are the attributes of the emitter."""
        compiled = load_compiled() if type(ring.frames).__module__.endswith(".hot") else None
        self._compiled = compiled
        self._ring = ring
        self._staging = staging
        make: Any = KnownLogs if compiled is None else compiled.KnownLogs
        self.known: KnownLogs = make(
            shared,
            ring.frames,
            emitter,
            faults,
            TrainerState,
            TrainerControl,
            SLOW_FIELDS,
            StagedLog,
            deque,
        )
        self._made: dict[tuple[Any, ...], tuple[Entry, ...] | None] = {}
        self._devices: dict[int, bool] = {}
        self._reads_tensors: bool | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code serves this run."""
        return self._compiled is not None

    def learn(self, logs: Mapping[Any, Any]) -> None:
        """Make the form of a log that went the general way, unless it is known."""
        if type(logs) is not dict or not 0 < len(logs) <= _MOST:
            return
        key = tuple(part for name, value in logs.items() for part in (name, type(value)))
        if self._made.get(key, ()) is None:  # no log like this has a form
            return
        entries = self._describe(logs)
        if key in self._made and self._made[key] == entries:
            return
        if len(self._made) >= _KEPT:
            self._made.clear()
            self.known.forget()
        self._made[key] = entries
        if entries is not None and (form := self._make(entries)) is not None:
            self.known.learn(key, form)

    def close(self) -> None:
        """Let go of the run."""
        self.known.close()

    def _make(self, entries: tuple[Entry, ...]) -> Any:
        """Return a form; None if the ring has no number for it."""
        staged = {e.name: Part(DTYPES[e.dtype].kind, 0) for e in entries if _is_staged(e)}
        host = {e.name: _kind(e) for e in entries if not _is_staged(e)}
        layout = Layout(staged)
        number = self._ring.number_form(pack_layout([e.name for e in entries], layout, host))
        if not number:
            return None
        make: Any = Form if self._compiled is None else self._compiled.Form
        return make(number, entries, layout, len(staged))

    def _describe(self, logs: Mapping[Any, Any]) -> tuple[Entry, ...] | None:
        """Return what is known of each value; None if a log like this has no form."""
        entries: list[Entry] = []
        slots = 0
        for name, value in logs.items():
            entry = self._entry(name, value, slots) if type(name) is str else None
            if entry is None:
                return None
            entries.append(entry)
            slots += _is_staged(entry)
        return tuple(entries)

    def _entry(self, name: str, value: Any, slots: int) -> Entry | None:
        kind = type(value)
        if kind in _PLAIN:
            return Entry(name, kind, _PLAIN[kind])
        if kind.__module__ == "numpy":
            dtype = getattr(value, "dtype", None)
            how = _OF_NUMPY.get(getattr(dtype, "kind", ""))
            fits = getattr(value, "shape", None) == () and getattr(dtype, "itemsize", 9) <= 8
            is_number = how is not None and fits and kind.__name__ != "ndarray"
            return Entry(name, kind, how, plain=False) if how is not None and is_number else None
        torch = sys.modules.get("torch")
        if torch is None or kind is not torch.Tensor or value.ndim or not self._can_read(kind):
            return None
        number = _NUMBERS.get(str(value.dtype))
        if number is None or value.device.type not in ("cpu", "cuda"):
            return None
        dtype = DTYPES[number]
        if value.device.type == "cpu":
            if number not in ON_HOST:
                return None
            return Entry(name, kind, How.HOST_TENSOR, False, dtype.code, dtype.bits, number)
        device = value.get_device()
        if not self._can_launch(device):
            return None
        how = How.DEVICE_TENSOR
        return Entry(name, kind, how, False, dtype.code, dtype.bits, number, slots, device)

    def _can_read(self, tensor: Any) -> bool:
        """Return whether tensors can be read; the compiled code does it through DLPack."""
        if self._reads_tensors is None:
            self._reads_tensors = True
            if self._compiled is not None:
                exchange = getattr(
                    tensor, "__dlpack_c_exchange_api__", None
                )  # torch 2.10 and later
                self._reads_tensors = exchange is not None
                if exchange is not None:
                    self.known.use_tensors(exchange)  # type: ignore[attr-defined]
        return self._reads_tensors

    def _can_launch(self, device: int) -> bool:
        """Return whether the kernel is loaded for a device."""
        if self._compiled is None or self._staging.device is None:
            return False
        known: Any = self.known
        if device not in self._devices:
            staging: DeviceStaging = self._staging.device
            known.use_slots(staging.address, staging.pending, staging.arrive, staging.settle)
            error = known.use_device(device, _kernel())
            self._devices[device] = not error
            if error:
                logger.debug("the driver refuses the kernel for device %d (%d)", device, error)
        return self._devices[device]


def _is_staged(entry: Entry) -> bool:
    return entry.how == How.DEVICE_TENSOR


def _kind(entry: Entry) -> Kind:
    return DTYPES[entry.dtype].kind if entry.how == How.HOST_TENSOR else _KINDS[entry.how]


_NUMBERS: Final = {dtype.name: number for number, dtype in enumerate(DTYPES)}


def _kernel() -> bytes:
    """Return the kernel as PTX, which the driver translates for its device."""
    folder = Path(asynccb._compiled.__path__[0])
    return (folder / "gather.ptx").read_bytes()
