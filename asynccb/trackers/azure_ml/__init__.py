"""
The tracker for AzureML.

May import: base, server, names, shared, mlflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.trackers.azure_ml.callback import AzureMLCallback

__all__ = [
    "AzureMLCallback",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "callback"))
