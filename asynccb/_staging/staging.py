"""
Turns logged values into plain values, without making the training thread wait if avoidable.

Promises: nothing else in asynccb reads a tensor. A tensor in host memory is read immediately, which
costs about a microsecond. A tensor on a CUDA device is staged (`device.py`), which waits for
nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from asynccb._compiled.load import make_shared
from asynccb._compiled.shared import Shared
from asynccb._ground.advice import for_object
from asynccb._ground.types import Overflow
from asynccb._ring.slots import Slots
from asynccb._staging.staged import EXTENSION, Staged
from asynccb._staging.staged_logs import LogPacker, StagedLogs

if TYPE_CHECKING:
    from asynccb._staging.device import DeviceStaging
    from asynccb._staging.log_form import Form

logger = logging.getLogger("asynccb")

LONGEST: Final = 4096
"""Elements of the longest 1-d tensor to accept; a longer tensor is not a metric."""

_KEPT: Final = 256
"""Most forms of logs to remember."""
_IN_RECORDS: Final = frozenset({float, int, str, bool, type(None), Staged})
_NO_METRIC: Final = ", which is not a number, text, or short list of numbers"
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
"""Bounds of the integers that a record can hold; other integers become floats."""


class Staging:
    """The conversion of logs to values that a record can hold."""

    def __init__(
        self,
        find_slots: Callable[[], Slots],
        consumed: Callable[[], int],
        overflow: Overflow,
        shared: Shared | None = None,
    ) -> None:
        """
        Take the slots for devices, used once a device value is logged.

        `find_slots` returns the slots to write to, `consumed` the position below which the
        companion has read them. `overflow` is the policy for the case that all slots are in use.
        `shared` has the positions of the slots.
        """
        self._find_slots = find_slots
        self._consumed = consumed
        self._overflow = overflow
        self._shared = make_shared() if shared is None else shared
        self._encode = msgspec.msgpack.Encoder(enc_hook=self.plain_object).encode
        self.packer = LogPacker(self.encode)
        self.device: DeviceStaging | None = None
        """The staging of values from CUDA devices; made with the first such value."""
        self.forms: dict[tuple[str, ...], Form] = {}
        """The recurring forms of logs with tensors on devices, by their names."""
        self._odd: set[tuple[str, type]] = set()
        self.odd = 0
        """Number of values recorded as text, because they were not a number, text, list or dict,
        and of records with text that needed escapes."""

    def plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the values with all tensors and array scalars as numbers.

        Returns the same dict if all values are plain already. An object that cannot be logged
        becomes its `str`, is counted, and causes a warning once per key.
        """
        if self.forms and (form := self.forms.get(tuple(values))) is not None:
            taken = form.take(values)
            if taken is not None and (sent := self._send(values, form, taken)) is not None:
                return sent
        for key, value in values.items():
            kind = type(value)
            if (
                kind not in _IN_RECORDS
                or type(key) is not str
                or (kind is int and not _LEAST <= value <= _MOST)
            ):
                break
        else:
            return values if isinstance(values, dict) else dict(values)
        plain: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key)
            plain[name] = self._safely_plain(name, value)
        tensor = getattr(sys.modules.get("torch"), "Tensor", None)
        tensors = {key: value for key, value in plain.items() if type(value) is tensor}
        return self._stage(values, plain, tensors) if tensors else plain

    def plain_object(self, value: Any) -> Any:
        """
        Return a tensor in host memory, or an array, as numbers; used as an encoder's hook.

        A value on its way becomes a reference to its slot. Raises TypeError for anything else:
        converting it needs `plain`, which sees all values and their keys.
        """
        if type(value) is Staged:
            if value.landed:
                return value.value()
            return msgspec.msgpack.Ext(EXTENSION, value.reference())
        # Only of known types: code of any other could raise what no encoder expects.
        with contextlib.suppress(RuntimeError):  # a dtype that `tolist` cannot read
            if _is_of_host(value) and _is_short(value):
                return _numbers(value)
        raise TypeError(f"{type(value).__name__} has no plain form")

    def encode(self, values: Any, encode: Callable[[Any], bytes] | None = None) -> bytes:
        """Encode plain values; text that is not valid Unicode, such as a file name, is escaped."""
        encode = encode or self._encode
        try:
            return encode(values)
        except UnicodeEncodeError:
            self.odd += 1
            return encode(_escaped(values))

    def for_record(self, logs: Any) -> tuple[Any, bool]:
        """
        Return logs in the form that a record contains, and whether the form refers to slots.

        Only logs with values on their way have a form of their own.
        """
        if type(logs) is StagedLogs and logs.log.values is None and logs.is_whole:
            return self.packer.pack(logs), True
        return logs, False

    def _stage(
        self, values: Mapping[str, Any], plain: dict[str, Any], tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """Send the tensors among plain values; those that the device refuses become text."""
        from asynccb._staging.unwrapping import outside_transforms

        form = self._find_form(tensors, values, plain)
        with outside_transforms():
            sent = self._send(plain, form, form.pick(tensors))
        if sent is not None:
            return sent
        refused = {
            key: self._text(
                key, f"<{type(tensor).__name__}>", type(tensor), "its device refused it"
            )
            for key, tensor in tensors.items()
        }
        return plain | refused

    def _find_form(
        self, tensors: dict[str, Any], values: Mapping[str, Any], plain: dict[str, Any]
    ) -> Form:
        """Compute a log's form, and remember it if similar logs can be recognized."""
        from asynccb._staging.log_form import Form

        form = Form(tensors, list(plain))
        as_given = all(values.get(key) is tensor for key, tensor in tensors.items())
        if form.recurs and as_given and all(type(key) is str for key in values):
            if len(self.forms) >= _KEPT:
                self.forms.clear()
            self.forms[tuple(values)] = form
        return form

    def _send(
        self, values: Mapping[str, Any], form: Form, tensors: tuple[Any, ...]
    ) -> dict[str, Any] | None:
        """
        Start copying the tensors to slots; return the values with stand-ins for the tensors.

        Returns None if the device refuses a tensor.
        """
        if self.device is None:
            from asynccb._staging.device import DeviceStaging

            self.device = DeviceStaging(
                self._find_slots(), self._consumed, self._overflow, self._shared
            )
        try:
            log = self.device.stage(form, tensors)
        except RuntimeError:
            self.device.check()
            return None
        if log is None:
            return {key: value for key, value in values.items() if key not in form.layout.keys}
        return StagedLogs.of(values, log)

    def _safely_plain(self, key: str, value: Any) -> Any:
        """
        Return a value as numbers or text; if it cannot be read, return its type as text.

        A value on a CUDA device becomes a plain tensor that can be staged.
        """
        try:
            return self._tensor(key, value) if _is_tensor(value) else self._plain(key, value)
        except Exception:  # noqa: BLE001 - the value's own code runs here; counted and logged
            return self._text(key, f"<{type(value).__name__}>", type(value))

    def _plain(self, key: str, value: Any) -> Any:
        kind = type(value)
        if kind is int and not _LEAST <= value <= _MOST:
            return float(value) if abs(value) < 1 << 1023 else str(value)
        if kind in _IN_RECORDS:
            return value
        if isinstance(value, Mapping):
            return {str(k): self._plain(f"{key}.{k}", v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(key, item) for item in value]
        if _is_tensor(value):
            return self._tensor(key, value, stages=False)
        if _is_array(value):
            return self._array(key, value)
        for base in (bool, int, float, str):
            if isinstance(value, base):
                return base(value)
        return self._text(key, value)

    def _tensor(self, key: str, value: Any, *, stages: bool = True) -> Any:
        """
        Read a tensor as `_array` does, which waits for a device.

        With `stages`, return a tensor of a CUDA device instead, plain and ready to be staged.
        """
        if not _is_short(value):
            return self._array(key, value)
        torch = sys.modules["torch"]
        if type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_cuda:
            try:
                return _numbers(value)
            except RuntimeError:  # in a wrapper that looks like a plain tensor
                pass
        from asynccb._staging.unwrapping import NoNumberError, for_slots, unwrap

        try:
            plain = unwrap(value)
            if stages and plain.is_cuda and plain.numel():
                return for_slots(plain)
        except NoNumberError as error:
            return self._text(key, f"<{type(value).__name__}>", type(value), str(error))
        return _numbers(plain)

    def _array(self, key: str, value: Any) -> Any:
        """Read an array as a number or a short list of numbers."""
        if _is_short(value):
            return _numbers(value)
        return self._text(
            key, f"<{type(value).__name__} of shape {tuple(value.shape)}>", type(value)
        )

    def _text(
        self, key: str, value: object, kind: type | None = None, reason: str | None = None
    ) -> str:
        kind = kind or type(value)
        text = str(value)  # may raise
        self.odd += 1
        if (key, kind) not in self._odd and len(self._odd) < 1000:
            self._odd.add((key, kind))
            logger.warning(
                "%r was logged with a %s%s; it goes on as text (said once per key)%s",
                key,
                kind.__name__,
                f": {reason}" if reason else _NO_METRIC,
                "" if reason else f". Instead: {for_object(kind)}",
            )
        return text


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_of_host(value: Any) -> bool:
    """Return whether a value is a plain tensor in host memory, or an array or number of NumPy."""
    torch = sys.modules.get("torch")
    if torch is not None and type(value) is torch.Tensor:
        return bool(value.device.type == "cpu")
    return type(value).__module__ == "numpy" and _is_array(value)


def _is_array(value: object) -> bool:
    return all(hasattr(value, name) for name in ("tolist", "ndim", "reshape"))


def _is_short(array: Any) -> bool:
    """Return whether a tensor or an array is one number, or a short row of numbers."""
    if array.ndim == 0:
        return True
    size = array.numel() if hasattr(array, "numel") else array.size
    return bool((array.ndim == 1 and size <= LONGEST) or size == 1)


def _escaped(value: Any) -> Any:
    """Return plain values with lone surrogates escaped, in text at any depth."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(array: Any) -> Any:
    """Read a short array: as a number if it has one element, else as a list."""
    try:
        values = array.reshape(-1).tolist()
    except RuntimeError:  # a tensor's own class may know its number only
        values = [array.item()]
    if values and type(values[0]) not in _IN_RECORDS:
        values = [_as_number(value) for value in values]
    return values[0] if len(values) == 1 else values


def _as_number(value: Any) -> Any:
    """Convert an element of a dtype without a Python type (`longdouble`, say)."""
    return float(value.real) if getattr(value, "imag", None) == 0 else str(value)
