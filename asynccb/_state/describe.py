"""What the training process tells its companion about the run: plain values, no secrets."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from asynccb.trackers.names import clean


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
