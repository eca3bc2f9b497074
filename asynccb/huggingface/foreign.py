"""
Making an object of ours a callback of transformers, which is imported only at that moment.

Promises: transformers sees its own classes. When transformers recreates a callback from a
checkpoint, it gets the existing instance back, state included.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from asynccb._ground.exceptions import ConfigurationError

T = TypeVar("T")


def make_foreign(kind: type[T]) -> T:
    """
    Return an instance of a subclass of `kind`, `TrainerCallback` and `ExportableState`.

    The last two are classes of transformers. Each instance has its own class, which returns this
    instance whenever it is called, because transformers restores a callback by calling its class.
    `__init__` is then called again. Raises `ConfigurationError` if transformers is not installed.
    """
    try:
        theirs = import_module("transformers.trainer_callback")
    except ImportError as error:
        raise ConfigurationError(
            f"{kind.__name__} is for transformers.Trainer, and transformers cannot be imported "
            f"({error}); asynccb.Trainer and CallbackDispatcher take callbacks without it"
        ) from error
    instance: T

    def same(cls: type[T], *args: Any, **kwargs: Any) -> T:
        return instance

    def copy(self: T, memo: object = None) -> T:
        return self

    def refuse(self: T, protocol: object) -> NoReturn:
        raise TypeError(f"{kind.__name__} belongs to this process and cannot be pickled")

    make: Callable[..., type[T]] = type
    own = make(
        kind.__name__,
        (kind, theirs.TrainerCallback, theirs.ExportableState),
        {
            "__new__": same,
            "__copy__": copy,
            "__deepcopy__": copy,
            "__reduce_ex__": refuse,
            "__module__": kind.__module__,
            "__doc__": kind.__doc__,
        },
    )
    instance = object.__new__(own)
    return instance
