"""
Options of the optimizer and of its schedule, checked against what each of them takes.

Names and defaults are those of transformers 5.24.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.strategies import OptimizerNames, SchedulerType

_SCHEDULES: Final[dict[SchedulerType, tuple[str, ...]]] = {
    SchedulerType.COSINE: ("num_cycles",),
    SchedulerType.COSINE_WITH_RESTARTS: ("num_cycles",),
    SchedulerType.COSINE_WITH_MIN_LR: ("num_cycles", "min_lr", "min_lr_rate"),
    SchedulerType.POLYNOMIAL: ("lr_end", "power"),
    SchedulerType.INVERSE_SQRT: ("timescale",),
    SchedulerType.REDUCE_ON_PLATEAU: (
        *("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown"),
        *("min_lr", "eps"),
    ),
}
"""The options of each schedule; the last one's are those of torch's `ReduceLROnPlateau`."""

_OPTIMIZERS: Final[dict[OptimizerNames, tuple[str, ...]]] = {
    OptimizerNames.SGD: ("momentum", "dampening", "nesterov"),
    OptimizerNames.ADAGRAD: ("lr_decay", "eps"),
    OptimizerNames.RMSPROP: ("momentum", "alpha", "eps", "centered"),
}
_SWITCHES: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TEXTS: Final = {"mode": ("min", "max"), "threshold_mode": ("rel", "abs")}


def as_optimizer(value: object) -> OptimizerNames:
    """Return the optimizer of this name; raise `ConfigurationError` if there is none."""
    try:
        return OptimizerNames(value)  # type: ignore[arg-type]
    except ValueError:
        names = ", ".join(repr(str(name)) for name in OptimizerNames)
        raise ConfigurationError(
            f"optim is {value!r}; it takes one of {names}; pass any other optimizer to the Trainer "
            "as optimizers=(optimizer, None)"
        ) from None


def as_mapping(name: str, value: object) -> dict[str, Any] | None:
    """Return a mapping, or its JSON, as a dict; raise `ConfigurationError` for anything else."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            found = value
    if found is None or (isinstance(found, Mapping) and all(isinstance(k, str) for k in found)):
        return None if found is None else dict(found)
    raise ConfigurationError(f"{name} is {value!r}; it takes a dict, its JSON, or None")


def check_schedule(kind: SchedulerType, options: Mapping[str, Any], learning_rate: float) -> None:
    """Raise `ConfigurationError` for an option that this schedule does not take."""
    name = f"lr_scheduler_kwargs of {str(kind)!r}"
    _check_names(name, options, _SCHEDULES.get(kind, ()))
    for option, value in options.items():
        if option in _TEXTS:
            if value not in _TEXTS[option]:
                raise _bad(name, option, value, " or ".join(map(repr, _TEXTS[option])))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(name, option, value, "a number")
        elif not (math.isfinite(value) and value >= 0):
            raise _bad(name, option, value, "a finite number from 0 on")
    if options.get("timescale") == 0:
        raise _bad(name, "timescale", 0, "a number above 0")
    if kind == SchedulerType.COSINE_WITH_MIN_LR and ("min_lr" in options) == (
        "min_lr_rate" in options
    ):
        raise ConfigurationError(f"{name} take either min_lr or min_lr_rate, not {dict(options)!r}")
    lr_end = options.get("lr_end", 1e-7)
    if kind == SchedulerType.POLYNOMIAL and learning_rate <= lr_end:
        raise _bad(name, "lr_end", lr_end, f"a number below the learning_rate, {learning_rate!r}")


def read_optim_args(kind: OptimizerNames, text: str | None) -> dict[str, float | bool]:
    """Return the options in `name=value,name=value`; raise `ConfigurationError` for a bad one."""
    name = f"optim_args of {str(kind)!r}"
    options: dict[str, float | bool] = {}
    for pair in filter(None, (text or "").replace(" ", "").split(",")):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"optim_args is {text!r}; it takes 'name=value,name=value'")
        _check_names(name, {option: value}, _OPTIMIZERS.get(kind, ()))
        if option in ("nesterov", "centered"):
            if value.lower() not in _SWITCHES:
                raise _bad(name, option, value, "true or false")
            options[option] = _SWITCHES[value.lower()]
            continue
        try:
            options[option] = float(value)
        except ValueError:
            raise _bad(name, option, value, "a number") from None
        if not (math.isfinite(options[option]) and options[option] >= 0):
            raise _bad(name, option, value, "a finite number from 0 on")
    if options.get("nesterov") and (not options.get("momentum") or options.get("dampening")):
        raise _bad(name, "nesterov", True, "a momentum above 0 and no dampening")
    return options


def _check_names(name: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise ConfigurationError(f"{name} has no {option!r}; {takes}")


def _bad(name: str, option: str, value: object, takes: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {option} is {value!r}; it takes {takes}")
