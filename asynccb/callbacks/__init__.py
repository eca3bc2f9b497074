"""The callbacks that steer a run and show it: no tracker, no network."""

from asynccb.callbacks.default_flow import DefaultFlowCallback
from asynccb.callbacks.early_stopping import EarlyStoppingCallback
from asynccb.callbacks.printer import PrinterCallback
from asynccb.callbacks.progress import ProgressCallback

__all__ = [
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "PrinterCallback",
    "ProgressCallback",
]
