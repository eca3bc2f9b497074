"""
Async callbacks for training loops: events never wait, trackers never lose a step.

Importing asynccb loads neither torch nor httpx. Each name below is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asynccb._dispatch.dispatcher import CallbackDispatcher
    from asynccb._ground.events import Event
    from asynccb._ground.exceptions import (
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
    from asynccb._state.control import Decision, TrainerControl
    from asynccb._state.trainer_state import ExportableState, TrainerState
    from asynccb.arguments.training_arguments import TrainingArguments
    from asynccb.callbacks.base import TrainerCallback
    from asynccb.callbacks.decides import decides
    from asynccb.callbacks.default_flow import DefaultFlowCallback
    from asynccb.callbacks.early_stopping import EarlyStoppingCallback
    from asynccb.callbacks.offload import offload
    from asynccb.callbacks.printer import PrinterCallback
    from asynccb.callbacks.progress import ProgressCallback
    from asynccb.huggingface.bridge import AsyncCallbacks
    from asynccb.trackers.azure_ml.callback import AzureMLCallback
    from asynccb.trackers.clearml.callback import ClearMLCallback
    from asynccb.trackers.codecarbon.callback import CodeCarbonCallback
    from asynccb.trackers.comet_ml.callback import CometCallback
    from asynccb.trackers.dagshub.callback import DagsHubCallback
    from asynccb.trackers.dvclive.callback import DVCLiveCallback
    from asynccb.trackers.flyte.callback import FlyteCallback
    from asynccb.trackers.mlflow.callback import MLflowCallback
    from asynccb.trackers.report_to import get_reporting_integration_callbacks
    from asynccb.trackers.swanlab.callback import SwanLabCallback
    from asynccb.trackers.tensorboard.callback import TensorBoardCallback
    from asynccb.trackers.trackio.callback import TrackioCallback
    from asynccb.trackers.wandb.callback import WandbCallback
    from asynccb.trainer.loop import Trainer

_HOMES: Final = {
    "AccessError": "_ground.exceptions",
    "AgreementError": "_ground.exceptions",
    "AsyncCCBError": "_ground.exceptions",
    "AsyncCallbacks": "huggingface.bridge",
    "AzureMLCallback": "trackers.azure_ml.callback",
    "CallbackDispatcher": "_dispatch.dispatcher",
    "BusyError": "_ground.exceptions",
    "CallbackError": "_ground.exceptions",
    "ClearMLCallback": "trackers.clearml.callback",
    "ClosedError": "_ground.exceptions",
    "CodeCarbonCallback": "trackers.codecarbon.callback",
    "CometCallback": "trackers.comet_ml.callback",
    "ConfigurationError": "_ground.exceptions",
    "DVCLiveCallback": "trackers.dvclive.callback",
    "DagsHubCallback": "trackers.dagshub.callback",
    "Decision": "_state.control",
    "DefaultFlowCallback": "callbacks.default_flow",
    "DefinitionError": "_ground.exceptions",
    "DeliveryError": "_ground.exceptions",
    "EarlyStoppingCallback": "callbacks.early_stopping",
    "Event": "_ground.events",
    "ExportableState": "_state.trainer_state",
    "FaultError": "_ground.exceptions",
    "FlyteCallback": "trackers.flyte.callback",
    "ForkedError": "_ground.exceptions",
    "FrozenError": "_ground.exceptions",
    "HookReturnError": "_ground.exceptions",
    "JournalError": "_ground.exceptions",
    "LateDecisionError": "_ground.exceptions",
    "MLflowCallback": "trackers.mlflow.callback",
    "MailboxFullError": "_ground.exceptions",
    "PrinterCallback": "callbacks.printer",
    "ProgressCallback": "callbacks.progress",
    "RejectedError": "_ground.exceptions",
    "StateFileError": "_ground.exceptions",
    "SwanLabCallback": "trackers.swanlab.callback",
    "TensorBoardCallback": "trackers.tensorboard.callback",
    "TraceError": "_ground.exceptions",
    "TrackioCallback": "trackers.trackio.callback",
    "Trainer": "trainer.loop",
    "TrainerCallback": "callbacks.base",
    "TrainerControl": "_state.control",
    "TrainerState": "_state.trainer_state",
    "TrainingArguments": "arguments.training_arguments",
    "TransientError": "_ground.exceptions",
    "UndecidedError": "_ground.exceptions",
    "UnknownEventError": "_ground.exceptions",
    "WandbCallback": "trackers.wandb.callback",
    "decides": "callbacks.decides",
    "get_reporting_integration_callbacks": "trackers.report_to",
    "offload": "callbacks.offload",
}
"""The module that defines each public name."""

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
