"""`transformers.Trainer` on the line of `tests/support/regression.py`."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

from tests.support.regression import Line, Model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what transformers imports
    import transformers

gc.collect()
gc.freeze()  # each train() of theirs collects garbage: half a second with all these modules

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])


def their_arguments(directory: Path, **settings: Any) -> transformers.TrainingArguments:
    given = {
        "report_to": "none",
        "use_cpu": True,
        "learning_rate": 0.1,
        "disable_tqdm": True,
        "label_names": ["labels"],
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(str(directory), **(given | settings))


def their_trainer(
    directory: Path,
    *callbacks: Any,
    model: Any = None,
    kind: type[transformers.Trainer] = transformers.Trainer,
    given: dict[str, Any] | None = None,
    **settings: Any,
) -> transformers.Trainer:
    """Make a trainer for 64 points in batches of 8; `given` goes to it, the rest to arguments."""
    more: dict[str, Any] = {"train_dataset": Line(), "eval_dataset": Line(16, seed=1)}
    return kind(
        Model() if model is None else model,
        their_arguments(directory, **settings),
        callbacks=list(callbacks),
        **(more | (given or {})),
    )
