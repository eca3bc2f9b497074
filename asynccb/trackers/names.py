"""
Names of metrics, the values that count as numbers, and configurations without secrets.

Pure functions, the same for every tracker. Promises: the same input gives the same output in any
process. The output of `clean` can be written as strict JSON and as MessagePack, and contains no
credential that its key or its place in a URL gives away. Names, and the order in which
configurations are merged, follow transformers 5.23.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from asynccb._ground.exceptions import ConfigurationError
from asynccb._ground.plain import clean, is_scalar
from asynccb._state.run_description import RunDescription

Names: TypeAlias = Literal["grouped", "given"]
"""Whether metrics are named as in transformers (`train/loss`), or as they were logged (`loss`)."""

_ENDS: Final = 60
"""Characters of each end of a long name that a message repeats."""

MARK: Final = 9
"""Characters of a checksum and the `_` before it."""

SINGLE_VALUES: Final = frozenset(
    {
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
        "train_loss",
        "total_flos",
    }
)
"""Figures of a whole run; they are logged once, at its end, under these raw names."""

_PREFIXES: Final = (("eval_", "eval/"), ("test_", "test/"))


def names_option(value: object) -> Names:
    """Return a valid choice of names; raise `ConfigurationError` for any other value."""
    if value == "grouped" or value == "given":
        return value
    raise ConfigurationError(
        f"names is {value!r}; it takes 'grouped' (train/loss, eval/loss, as in transformers) or "
        "'given' (each metric under the name that was logged)"
    )


def marked(shown: str, name: str, longest: int | None = None) -> str:
    """Return a changed name with a checksum of the name as given, within so many characters."""
    kept = shown if longest is None else shown[: longest - MARK]
    return f"{kept}_{zlib.crc32(name.encode('utf-8', 'backslashreplace')):08x}"


def quoted(name: str) -> str:
    """Return a name for a message: in quotes, without a password, a long one without its middle."""
    shown = str(clean(name))
    if len(shown) <= 3 * _ENDS:
        return repr(shown)
    return f"{shown[:_ENDS] + '…' + shown[-_ENDS:]!r} ({len(shown)} characters)"


def grouped(name: str) -> str:
    """
    Return a metric's grouped name.

    `eval_x` becomes `eval/x`, `test_x` becomes `test/x`, and any other `x` becomes `train/x`,
    without exceptions: `train_loss` becomes `train/train_loss` and `epoch` becomes `train/epoch`.
    """
    for prefix, group in _PREFIXES:
        if name.startswith(prefix):
            return group + name.removeprefix(prefix)
    return "train/" + name


def scalars(logs: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """
    Return the numbers of the logs as floats, and the names of all other values, in their order.

    NaN and infinity are numbers. An integer too large for a float (above 1.8e308) is not.
    """
    kept: dict[str, float] = {}
    dropped: list[str] = []
    for name, value in logs.items():
        if type(value) is float:  # nearly always; a check against an abstract class costs 2 us
            kept[name] = value
            continue
        number = _as_float(value) if is_scalar(value) else None
        if number is None:
            dropped.append(name)
        else:
            kept[name] = number
    return kept, dropped


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def run_config(run: RunDescription) -> dict[str, Any]:
    """
    Return a run's configuration, cleaned: the training arguments over the model's configuration.

    If both contain a name, the argument wins. The configuration of PEFT adapters is included as
    `peft_config`, unless that name is already in use.
    """
    config: dict[str, Any] = {}
    if run.model is not None:
        if run.model.peft_config is not None:
            config["peft_config"] = run.model.peft_config
        config.update(run.model.config or {})
    config.update(run.args.to_dict())
    cleaned: dict[str, Any] = clean(config)
    return cleaned
