"""
Checks of the training arguments.

Promises: an error contains the field's name, its value, and the accepted values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.intervals import is_multiple
from asynccb.arguments.options import check_schedule, read_optim_args

E = TypeVar("E", bound=StrEnum)

_SEEDS: Final = 2**32  # numpy's seeds are below this; torch accepts larger ones


class _Range(NamedTuple):
    """The accepted values of a number: from `low` to `high`, which is excluded if `open`."""

    low: float
    high: float = math.inf
    whole: bool = False
    open: bool = False

    def holds(self, value: object) -> bool:
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            return False
        return self.low <= value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        if self.high == math.inf:
            return f"{kind} from {self.low:g} on"
        return f"{kind} from {self.low:g} to {'below ' if self.open else ''}{self.high:.12g}"


_RANGES: Final[dict[str, _Range]] = {
    "num_train_epochs": _Range(0),
    "max_steps": _Range(-1, whole=True),
    "per_device_train_batch_size": _Range(1, whole=True),
    "per_device_eval_batch_size": _Range(1, whole=True),
    "gradient_accumulation_steps": _Range(1, whole=True),
    "eval_accumulation_steps": _Range(1, whole=True),
    "learning_rate": _Range(0),
    "label_smoothing_factor": _Range(0, 1),
    "weight_decay": _Range(0),
    "adam_beta1": _Range(0, 1, open=True),
    "adam_beta2": _Range(0, 1, open=True),
    "adam_epsilon": _Range(0),
    "max_grad_norm": _Range(0),
    "warmup_steps": _Range(0),
    "warmup_ratio": _Range(0, 1),
    "ddp_timeout": _Range(1),
    "dataloader_num_workers": _Range(0, whole=True),
    "dataloader_prefetch_factor": _Range(1, whole=True),
    "seed": _Range(0, _SEEDS - 1, whole=True),
    "data_seed": _Range(0, _SEEDS - 1, whole=True),
    "logging_steps": _Range(0),
    "eval_steps": _Range(0),
    "eval_delay": _Range(0),
    "save_steps": _Range(0),
    "save_total_limit": _Range(1, whole=True),
}

_KINDS: Final[dict[str, tuple[Any, str]]] = {
    "bool": (bool, "True or False"),
    "bool | None": (bool | None, "True, False or None"),
    "str": (str, "text"),
    "str | None": (str | None, "text or None"),
}
"""The accepted values by a field's annotation: for `isinstance`, and in words."""

_LEVELS: Final = ("detail", "debug", "info", "warning", "error", "critical", "passive")
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "log_level": _LEVELS,
    "log_level_replica": _LEVELS,
}


def as_directory(name: str, value: object, default: str) -> str:
    """Return the path as text, with `~` expanded; for None, return the default."""
    if value is None:
        return default
    if not isinstance(value, str | os.PathLike):
        raise _error(name, value, "a path, or None")
    return os.path.expanduser(os.fspath(value))


def as_enum(kind: type[E], name: str, value: object) -> E:
    """Return the member with this value; raise `ConfigurationError` if there is none."""
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise _error(name, value, f"one of {_list(kind)}") from None


def as_integral(name: str, interval: float) -> float:
    """
    Return an interval from 1 on as an int, and a share unchanged.

    Raises `ConfigurationError` for a fractional number of steps, such as 10.5.
    """
    if not _RANGES[name].holds(interval):
        raise _out_of_range(name, interval)
    if interval < 1:
        return interval
    if interval != int(interval):
        raise _error(name, interval, "a whole number of steps, or a share of the run below 1")
    return int(interval)


def as_names(name: str, value: object) -> list[str]:
    """
    Return the names of trackers, without duplicates.

    None and "none" become an empty list. "all" becomes `["all"]`, which is resolved when the
    trackers are made. Raises `ConfigurationError` if "all" or "none" comes with other names.
    """
    if value is None:
        return []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise _error(name, value, 'names of trackers, "all" or "none"')
    alone = {"all", "none"}.intersection(names)
    if alone and len(set(names)) > 1:
        raise _error(name, value, f"{_list(alone)} without other names, or names alone")
    return [] if alone == {"none"} else list(dict.fromkeys(names))


def as_texts(name: str, value: object) -> list[str] | None:
    """Return a list of texts, or None for None; raise `ConfigurationError` for anything else."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(n, str) and n for n in value):
        raise _error(name, value, "a list of names")
    if name == "include_for_metrics" and (unknown := set(value) - {"inputs", "loss"}):
        raise _error(name, sorted(unknown)[0], "'inputs', 'loss' or both, in a list")
    return list(value)


def check_kinds(args: Any) -> None:
    """Raise `ConfigurationError` for a flag or text of another type: `"false"` would be true."""
    for f in fields(args):
        kinds, takes = _KINDS.get(str(f.type), (object, ""))
        if not isinstance(getattr(args, f.name), kinds):
            raise _error(f.name, getattr(args, f.name), takes)


def check_values(args: Any) -> None:
    """Raise `ConfigurationError` for the first field with a value that can never work."""
    optional = {f.name for f in fields(args) if f.default is None}
    for name, allowed in _RANGES.items():
        value = getattr(args, name)
        if not allowed.holds(value) and not (value is None and name in optional):
            raise _out_of_range(name, value)
    for name, choices in _CHOICES.items():
        if getattr(args, name) not in choices:
            raise _error(name, getattr(args, name), f"one of {_list(choices)}")


def check_combinations(args: Any) -> None:
    """Raise `ConfigurationError` if the values of two fields cannot work together."""
    if args.logging_strategy == "steps" and args.logging_steps == 0:
        raise _error("logging_steps", 0, "a number above 0 if logging_strategy is 'steps'")
    if args.fp16 and args.bf16:
        raise ConfigurationError("fp16 and bf16 are both True; set one of them")
    if args.dataloader_prefetch_factor is not None and args.dataloader_num_workers == 0:
        raise _error(
            "dataloader_prefetch_factor",
            args.dataloader_prefetch_factor,
            "None if dataloader_num_workers is 0: without workers nothing is fetched ahead",
        )
    check_schedule(args.lr_scheduler_type, args.lr_scheduler_kwargs or {}, args.learning_rate)
    read_optim_args(args.optim, args.optim_args)
    if args.lr_scheduler_type == "reduce_lr_on_plateau" and args.eval_strategy == "no":
        raise _error(
            "eval_strategy",
            str(args.eval_strategy),
            "'steps' or 'epoch' if lr_scheduler_type is 'reduce_lr_on_plateau', which follows them",
        )
    if args.save_strategy == "best":
        _check_best_is_known(args)
    elif args.load_best_model_at_end:
        _check_best_is_saved(args)


def _check_best_is_known(args: Any) -> None:
    if args.metric_for_best_model is None:
        raise _error("metric_for_best_model", None, "a metric's name if save_strategy is 'best'")
    if args.eval_strategy == "no":
        raise _error(
            "eval_strategy",
            str(args.eval_strategy),
            "'steps' or 'epoch' if save_strategy is 'best': nothing would ever be saved",
        )


def _check_best_is_saved(args: Any) -> None:
    """
    Raise `ConfigurationError` unless every save is due together with an evaluation.

    As in transformers. An evaluation that is the best so far is saved in any case.
    """
    if args.eval_strategy != args.save_strategy:
        raise ConfigurationError(
            "load_best_model_at_end needs eval_strategy and save_strategy to be the same, but they "
            f"are {str(args.eval_strategy)!r} and {str(args.save_strategy)!r}; make them the same, "
            "or set save_strategy='best'"
        )
    if args.eval_strategy != "steps" or args.eval_steps is None:
        return
    mixed = args.save_steps != 0 and (args.save_steps < 1) != (args.eval_steps < 1)
    if mixed or not is_multiple(args.save_steps, args.eval_steps):
        raise ConfigurationError(
            "load_best_model_at_end needs save_steps to be a multiple of eval_steps, both in steps "
            f"or both as shares of the run, but they are {args.save_steps!r} and "
            f"{args.eval_steps!r}; change one, or set save_strategy='best'"
        )


class Rank(NamedTuple):
    """This process's rank, its rank on its machine, and the number of processes."""

    rank: int
    local_rank: int
    world_size: int


def read_rank(environ: Mapping[str, str]) -> Rank:
    """
    Return the values of `RANK`, `LOCAL_RANK` and `WORLD_SIZE`, which torchrun sets.

    Without torchrun they are unset, and this is the only process.
    """
    rank, local_rank = _read_count(environ, "RANK", 0), _read_count(environ, "LOCAL_RANK", 0)
    world_size = _read_count(environ, "WORLD_SIZE", 1)
    if max(rank, local_rank) >= world_size:
        raise ConfigurationError(
            f"RANK={rank} and LOCAL_RANK={local_rank} must be below WORLD_SIZE={world_size}; unset "
            "all three to train in one process"
        )
    return Rank(rank, local_rank, world_size)


def _read_count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise _error(f"the environment variable {name}", text, "digits, as torchrun sets them")
    return int(text) if text else default


def plain(value: object) -> Any:
    """
    Return the value in a form that JSON has.

    An enum becomes its value, a container is converted with all its items, a number that is not
    finite and any other object become text.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _out_of_range(name: str, value: object) -> ConfigurationError:
    return _error(name, value, str(_RANGES[name]))


def _list(values: Iterable[str]) -> str:
    return ", ".join(repr(str(value)) for value in values)


def _error(name: str, value: object, takes: str) -> ConfigurationError:
    # A token is a secret: show its type only.
    shown = f"a {type(value).__name__}" if name.endswith("_token") else repr(value)
    return ConfigurationError(f"{name} is {shown}; it takes {takes}")
