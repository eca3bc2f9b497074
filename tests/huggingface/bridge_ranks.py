"""Run under `torchrun` by `test_ranks.py`: a bridge on each rank."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import asynccb  # noqa: E402
from tests.huggingface.their_trainer import their_trainer  # noqa: E402
from tests.support.callbacks_for_tests import FileTracker  # noqa: E402

RANK = int(os.environ["RANK"])


class Differ(asynccb.TrainerCallback):
    """Want a checkpoint on rank 0 only, a log on rank 1 only, and the end on rank 0 only."""

    @asynccb.decides(lag=1)
    async def on_step_end(self, args, state, control, **kwargs):
        if RANK == 0 and state.global_step == 1:
            control.should_save = True
        if RANK == 1 and state.global_step == 2:
            control.should_log = True

    @asynccb.decides(lag=5)
    async def on_step_begin(self, args, state, control, **kwargs):
        if RANK == 0 and state.global_step == 1:
            control.should_training_stop = True


def run(folder: Path, resume: Path | None = None) -> dict[str, Any]:
    tracker = FileTracker(str(folder / f"tracker-{RANK}"))
    with asynccb.AsyncCallbacks([Differ(), tracker]) as bridge:
        trainer = their_trainer(
            folder,
            bridge,
            ddp_backend="gloo",
            ddp_find_unused_parameters=False,
            logging_strategy="no",
            save_strategy="no",
        )
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    logged = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    return {"end": trainer.state.global_step, "logged": logged}


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    result = {
        "whole": run(directory / "whole"),
        "resumed": run(directory / "resumed", directory / "whole" / "checkpoint-2"),
    }
    (directory / f"rank-{RANK}.json").write_text(json.dumps(result))
