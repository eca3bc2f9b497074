"""
From what is logged to plain values, without the training thread waiting where that can be helped.

Promises: nothing else in asynccb reads a tensor. A tensor in the host's memory is read at once,
which costs about a microsecond; one on a device is read together with all others of the same log,
in one transfer, for which the training thread waits.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

logger = logging.getLogger("asynccb")

LONGEST: Final = 4096
"""Elements of the longest 1-d tensor that is taken; longer ones are no metric."""

_PLAIN: Final = frozenset({float, int, str, bool, type(None)})
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
"""The integers that a record can hold; others become floats."""


class Staging:
    """Turn logs into values that a record can hold."""

    def __init__(self) -> None:
        self._odd: set[tuple[str, type]] = set()
        self.odd = 0
        """Values that were no number, text, list or dict and went on as text."""

    def plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the values with every tensor and array scalar as numbers.

        The same dict comes back where all values are plain already. An object that is none of the
        things that can be logged becomes its `str`, is counted, and is warned of once per key.
        """
        for key, value in values.items():
            kind = type(value)
            if (
                kind not in _PLAIN
                or type(key) is not str
                or (kind is int and not _LEAST <= value <= _MOST)
            ):
                break
        else:
            return values if type(values) is dict else dict(values)
        fetched = self._fetch(values)
        return {str(key): self._plain(str(key), fetched.get(key, v)) for key, v in values.items()}

    def plain_object(self, value: Any) -> Any:
        """
        Return a tensor in the host's memory, or an array, as numbers; for an encoder's hook.

        Raises TypeError for anything else: it takes `plain`, which sees all values and their keys.
        """
        device = getattr(value, "device", None)
        on_host = device is None or getattr(device, "type", "cpu") == "cpu"
        if on_host and hasattr(value, "tolist") and hasattr(value, "ndim") and _is_short(value):
            return _numbers(value)
        raise TypeError(f"{type(value).__name__} has no plain form")

    def _fetch(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Read the scalars that lie on devices, all of one device in one transfer."""
        torch = sys.modules.get("torch")
        if torch is None:
            return {}
        by_device: dict[Any, list[str]] = {}
        for key, value in values.items():
            if (
                isinstance(value, torch.Tensor)
                and value.device.type != "cpu"
                and value.numel() == 1
            ):
                by_device.setdefault(value.device, []).append(key)
        fetched: dict[str, Any] = {}
        for keys in by_device.values():
            stacked = torch.stack([values[key].detach().reshape(()).double() for key in keys])
            fetched.update(zip(keys, stacked.tolist(), strict=True))
        return fetched

    def _plain(self, key: str, value: Any) -> Any:
        kind = type(value)
        if kind is int and not _LEAST <= value <= _MOST:
            return float(value) if abs(value) < 1 << 1023 else str(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, Mapping):
            return {str(k): self._plain(f"{key}.{k}", v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(key, item) for item in value]
        if hasattr(value, "tolist") and hasattr(value, "ndim"):
            return self._array(key, value)
        for base in (bool, int, float, str):
            if isinstance(value, base):
                return base(value)
        return self._text(key, value)

    def _array(self, key: str, value: Any) -> Any:
        """Read a tensor or an array: a number, or a short list of them."""
        if _is_short(value):
            return _numbers(value)
        return self._text(
            key, f"<{type(value).__name__} of shape {tuple(value.shape)}>", type(value)
        )

    def _text(self, key: str, value: object, kind: type | None = None) -> str:
        kind = kind or type(value)
        self.odd += 1
        if (key, kind) not in self._odd and len(self._odd) < 1000:
            self._odd.add((key, kind))
            logger.warning(
                "%r was logged with a %s, which is no number, text, or short list of numbers; "
                "it goes on as text (said once per key)",
                key,
                kind.__name__,
            )
        return str(value)


def _is_short(array: Any) -> bool:
    """Tell whether a tensor or an array is one number, or a short row of them."""
    size = array.numel() if hasattr(array, "numel") else array.size
    return bool(array.ndim == 0 or (array.ndim == 1 and size <= LONGEST) or size == 1)


def _numbers(array: Any) -> Any:
    """Read a short array: one number where it holds one, else a list."""
    values = array.reshape(-1).tolist()
    return values[0] if len(values) == 1 else values
