"""
The base class of callbacks, and the four callbacks that steer or show a run.

None of them is a tracker or uses the network.

May import: _ground, arguments, _staging, _state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "DefaultFlowCallback": "default_flow",
        "EarlyStoppingCallback": "early_stopping",
        "PrinterCallback": "printer",
        "ProgressCallback": "progress",
    },
)
