"""
What makes an object of ours a callback of transformers, whose own module is loaded only then.

Promises: transformers sees its own classes; where it makes a callback of a stored state anew, it
gets the one that is there, with all that it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from asynccb._ground.exceptions import ConfigurationError

T = TypeVar("T")


def make_foreign(kind: type[T]) -> T:
    """
    Return an instance of a subclass of `kind` that is a callback and an exportable state there.

    Each has a class of its own, which gives the same instance whenever it is called: transformers
    restores a callback by calling its class. `__init__` is then called again. Raises
    `ConfigurationError` where transformers is not installed.
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
