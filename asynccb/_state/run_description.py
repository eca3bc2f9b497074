"""
A run's description in the companion: plain data in place of the arguments and the model.

Promises: it is built from a `RUN` record alone, so that a journal can be read without the program
that wrote it. It contains no secrets.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from asynccb._ground.plain import clean

SIDES: Final = "sides"
"""Key in a `RUN` record of what the training sides of trackers say of their process, by tracker."""
PROCESS: Final = "process"
"""Word under which a tracker is told what its side says."""


class PlainArguments:
    """The values of the training arguments' `to_dict()`, as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the training arguments in the companion have no {name!r}; if a hook needs more than "
            "plain values, set placement = 'thread' on its callback"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class ModelDescription:
    """The description that hooks in the companion see instead of the model."""

    name: str
    """Name of the model's class."""
    config: dict[str, Any] | None
    """`model.config` as a dict, or None."""
    parameters: int
    """Number of parameters."""
    trainable: int
    """Number of parameters that require gradients."""
    peft_config: dict[str, Any] | None = None

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of parameters, like the method of a transformers model."""
        return self.trainable if only_trainable else self.parameters


@dataclass(frozen=True)
class RunDescription:
    """The description of one run for a tracker."""

    key: str
    """32 hexadecimal digits made by the training process. They are the same after any crash or
    replay, and in trainings resumed from the run's checkpoints. A tracker finds its run by them."""
    started: int
    """Unix time of the run's first record, in nanoseconds."""
    args: PlainArguments
    model: ModelDescription | None = None
    host: str = ""
    user: str = ""
    script: str = ""
    training: str = ""
    """Differs between trainings with the same key, each of which resumes an earlier one."""
    pid: int = 0
    """Id of the training process on its host; 0 if the journal does not contain it."""

    @classmethod
    def from_record(cls, time: int, extra: Mapping[str, Any]) -> RunDescription:
        """Build the description from the time and the `extra` of a `RUN` record."""
        model = extra.get("model")
        return cls(
            key=extra["key"],
            started=extra.get("started", time),
            args=PlainArguments(extra.get("args") or {}),
            model=ModelDescription(**model) if model else None,
            host=extra.get("host", ""),
            user=extra.get("user", ""),
            script=extra.get("script", ""),
            training=extra.get("training", ""),
            pid=extra.get("pid", 0),
        )


def describe_run(args: Any, model: Any, key: str, started: int) -> dict[str, Any]:
    """Return the `extra` of a `RUN` record; `RunDescription.from_record` reads it."""
    return {
        "key": key,
        "started": started,
        "args": clean(args.to_dict()) if args is not None else {},
        "model": _describe_model(model) if model is not None else None,
        "host": socket.gethostname(),
        "user": _user(),
        "script": os.path.basename(sys.argv[0]) if sys.argv else "",
        "pid": os.getpid(),
    }


def _describe_model(model: Any) -> dict[str, Any]:
    while hasattr(model, "module"):  # DistributedDataParallel
        model = model.module
    model = getattr(model, "_orig_mod", model)  # torch.compile
    parameters = list(model.parameters()) if hasattr(model, "parameters") else []
    return {
        "name": type(model).__name__,
        "config": _as_dict(getattr(model, "config", None)),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "peft_config": _as_dict(getattr(model, "peft_config", None)),
    }


def _as_dict(config: Any) -> dict[str, Any] | None:
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    elif hasattr(config, "__dataclass_fields__"):
        config = dict(vars(config))
    if not isinstance(config, Mapping):
        return None
    cleaned: dict[str, Any] = clean(config)
    return cleaned


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return ""
