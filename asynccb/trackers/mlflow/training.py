"""
The training process's part of an MLflow tracker: see the run that is active there.

Promises: `mlflow` is not imported, only looked at if the training has imported it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from asynccb.callbacks.training_side import TrainingSide
from asynccb.trackers.mlflow.address import comparable
from asynccb.trackers.shared.addresses import shown

logger = logging.getLogger("asynccb")

ACTIVE_RUN: Final = "active_run"


class MLflowTraining(TrainingSide):
    """Tell the id of the run that `mlflow.start_run` has begun on the training thread, if any."""

    def __init__(self, address: str) -> None:
        """Take the tracker's address: a run that is active at another one is another run."""
        self._address = address

    def describe(self) -> dict[str, Any]:
        """Return the run that is active as the training begins."""
        mlflow: Any = sys.modules.get("mlflow")
        find = getattr(mlflow, "active_run", None)
        run = find() if find is not None else None
        if run is None:
            return {}
        address = comparable(mlflow.get_tracking_uri())
        if address == self._address:
            return {ACTIVE_RUN: run.info.run_id}
        logger.warning(
            "the active MLflow run %s is kept at %s, and the callback was made for %s: it makes a "
            "run of its own there; set the tracking URI before the callback is made",
            *(run.info.run_id, shown(address), self._address),
        )
        return {}
