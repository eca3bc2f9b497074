"""
Async callbacks for training loops: events never wait, trackers never lose a step.

Importing this loads neither torch nor httpx; each name below is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asynccb._callback import TrainerCallback
    from asynccb._control import Decision, TrainerControl
    from asynccb._decides import decides
    from asynccb._dispatcher import CallbackDispatcher
    from asynccb._events import Event
    from asynccb._exceptions import (
        AccessError,
        AgreementError,
        AsyncCCBError,
        BusyError,
        CallbackError,
        ClosedError,
        ConfigurationError,
        DefinitionError,
        DeliveryError,
        FaultError,
        ForkedError,
        FrozenError,
        HookReturnError,
        JournalError,
        LateDecisionError,
        MailboxFullError,
        RejectedError,
        StateFileError,
        TraceError,
        TransientError,
        UndecidedError,
        UnknownEventError,
    )
    from asynccb._offload import offload
    from asynccb._reporting import get_reporting_integration_callbacks
    from asynccb._state import ExportableState, TrainerState
    from asynccb.arguments import TrainingArguments
    from asynccb.callbacks.default_flow import DefaultFlowCallback
    from asynccb.callbacks.early_stopping import EarlyStoppingCallback
    from asynccb.callbacks.printer import PrinterCallback
    from asynccb.callbacks.progress import ProgressCallback
    from asynccb.huggingface import AsyncCallbacks
    from asynccb.trackers.azure_ml import AzureMLCallback
    from asynccb.trackers.clearml import ClearMLCallback
    from asynccb.trackers.codecarbon import CodeCarbonCallback
    from asynccb.trackers.comet_ml import CometCallback
    from asynccb.trackers.dagshub import DagsHubCallback
    from asynccb.trackers.dvclive import DVCLiveCallback
    from asynccb.trackers.flyte import FlyteCallback
    from asynccb.trackers.mlflow import MLflowCallback
    from asynccb.trackers.swanlab import SwanLabCallback
    from asynccb.trackers.tensorboard import TensorBoardCallback
    from asynccb.trackers.trackio import TrackioCallback
    from asynccb.trackers.wandb import WandbCallback
    from asynccb.trainer import Trainer

_HOMES: Final = {
    "AccessError": "_exceptions",
    "AgreementError": "_exceptions",
    "AsyncCCBError": "_exceptions",
    "AsyncCallbacks": "huggingface",
    "AzureMLCallback": "trackers.azure_ml",
    "CallbackDispatcher": "_dispatcher",
    "BusyError": "_exceptions",
    "CallbackError": "_exceptions",
    "ClearMLCallback": "trackers.clearml",
    "ClosedError": "_exceptions",
    "CodeCarbonCallback": "trackers.codecarbon",
    "CometCallback": "trackers.comet_ml",
    "ConfigurationError": "_exceptions",
    "DVCLiveCallback": "trackers.dvclive",
    "DagsHubCallback": "trackers.dagshub",
    "Decision": "_control",
    "DefaultFlowCallback": "callbacks.default_flow",
    "DefinitionError": "_exceptions",
    "DeliveryError": "_exceptions",
    "EarlyStoppingCallback": "callbacks.early_stopping",
    "Event": "_events",
    "ExportableState": "_state",
    "FaultError": "_exceptions",
    "FlyteCallback": "trackers.flyte",
    "ForkedError": "_exceptions",
    "FrozenError": "_exceptions",
    "HookReturnError": "_exceptions",
    "JournalError": "_exceptions",
    "LateDecisionError": "_exceptions",
    "MLflowCallback": "trackers.mlflow",
    "MailboxFullError": "_exceptions",
    "PrinterCallback": "callbacks.printer",
    "ProgressCallback": "callbacks.progress",
    "RejectedError": "_exceptions",
    "StateFileError": "_exceptions",
    "SwanLabCallback": "trackers.swanlab",
    "TensorBoardCallback": "trackers.tensorboard",
    "TraceError": "_exceptions",
    "TrackioCallback": "trackers.trackio",
    "Trainer": "trainer",
    "TrainerCallback": "_callback",
    "TrainerControl": "_control",
    "TrainerState": "_state",
    "TrainingArguments": "arguments",
    "TransientError": "_exceptions",
    "UndecidedError": "_exceptions",
    "UnknownEventError": "_exceptions",
    "WandbCallback": "trackers.wandb",
    "decides": "_decides",
    "get_reporting_integration_callbacks": "_reporting",
    "offload": "_offload",
}
"""Where each public name is defined."""

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "AgreementError",
    "AsyncCCBError",
    "AsyncCallbacks",
    "AzureMLCallback",
    "BusyError",
    "CallbackDispatcher",
    "CallbackError",
    "ClearMLCallback",
    "ClosedError",
    "CodeCarbonCallback",
    "CometCallback",
    "ConfigurationError",
    "DVCLiveCallback",
    "DagsHubCallback",
    "Decision",
    "DefaultFlowCallback",
    "DefinitionError",
    "DeliveryError",
    "EarlyStoppingCallback",
    "Event",
    "ExportableState",
    "FaultError",
    "FlyteCallback",
    "ForkedError",
    "FrozenError",
    "HookReturnError",
    "JournalError",
    "LateDecisionError",
    "MLflowCallback",
    "MailboxFullError",
    "PrinterCallback",
    "ProgressCallback",
    "RejectedError",
    "StateFileError",
    "SwanLabCallback",
    "TensorBoardCallback",
    "TraceError",
    "TrackioCallback",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "TransientError",
    "UndecidedError",
    "UnknownEventError",
    "WandbCallback",
    "decides",
    "get_reporting_integration_callbacks",
    "offload",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'asynccb' has no attribute {name!r}") from None
    return getattr(import_module(f"asynccb.{home}"), name)


def __dir__() -> list[str]:
    return __all__
