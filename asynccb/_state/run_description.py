"""
A run as the companion knows it: plain data that stands in for the arguments and the model.

Promises: built from a `RUN` record alone, so that a journal can be read without the program that
wrote it; holds no secrets.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asynccb._ground.plain import clean


class PlainArguments:
    """Give the training arguments' values, as `to_dict()` had them, as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the training arguments that the companion got have no {name!r}; a hook that "
            "needs more than plain values runs with placement = 'thread'"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class ModelDescription:
    """Stand in for the model where hooks see plain data."""

    name: str
    """Name of the model's class."""
    config: dict[str, Any] | None
    """`model.config` as a dict, where it has one."""
    parameters: int
    """Number of parameters."""
    trainable: int
    """Number of parameters that require gradients."""
    peft_config: dict[str, Any] | None = None

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of parameters, as a model of transformers does."""
        return self.trainable if only_trainable else self.parameters


@dataclass(frozen=True)
class RunDescription:
    """Describe one run to a tracker."""

    key: str
    """32 hexadecimal digits made by the training process: the same after any crash or replay, and
    in trainings that are resumed from its checkpoints. What is found by it is the tracker's run."""
    started: int
    """Unix time of the run's first record, in nanoseconds."""
    args: PlainArguments
    model: ModelDescription | None = None
    host: str = ""
    user: str = ""
    script: str = ""
    training: str = ""
    """Differs between the trainings that go on from one another with the same key."""
    pid: int = 0
    """Id of the training process on its host; 0 where a journal does not say."""

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
    """Return the `extra` of a `RUN` record; `_run.RunDescription` reads it."""
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
