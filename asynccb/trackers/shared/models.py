"""Find the folder of a training's model, or write the final one, for trackers that store models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynccb._ground.events import Event
from asynccb._journal.uploads import Folder
from asynccb._state.run_description import PlainArguments
from asynccb.trackers.shared.answers import Reject

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot

logger = logging.getLogger("asynccb")

FINAL_MODEL: Final = "final_model"
"""Name of a training's last model."""


def model_folder(
    event: Event, args: PlainArguments, state: StateSnapshot, reject: Reject
) -> Folder | None:
    """
    Return the folder of a save's checkpoint; at the end of training, of the best or the last one.

    If `load_best_model_at_end` is set, return the best checkpoint. The folder is derived from the
    arguments and the state alone; if there is no `output_dir`, call `reject`.
    """
    output = getattr(args, "output_dir", None)
    checkpoint = f"checkpoint-{state.global_step}"
    if output is None:
        reject(checkpoint, "the training arguments have no output_dir to find it in")
        return None
    if event != Event.TRAIN_END:
        return Folder(Path(output) / checkpoint, checkpoint)
    best = state.best_model_checkpoint
    keeps_best = getattr(args, "load_best_model_at_end", False)
    path = Path(best) if best and keeps_best else Path(output) / checkpoint
    return Folder(path, FINAL_MODEL)


def write_final_model(folder: Path, given: Mapping[str, Any], instead: str) -> None:
    """
    Write the final model and its tokenizer, in the training process.

    `given` are the arguments of a hook. If a rank holds only a part of the model, the warning ends
    with `instead`, which tells the user what can be logged. If writing fails, only log a warning.
    """
    from asynccb.checkpoint.model_files import bare, is_sharded, save_weights

    model = bare(given["model"])
    if is_sharded(model):
        logger.warning(
            "the final model is not logged: each rank holds only a part of it; %s", instead
        )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(model, folder)
        if (tokenizer := given.get("processing_class")) is not None:
            tokenizer.save_pretrained(str(folder))
    except Exception as error:  # noqa: BLE001 - a model's own `save_pretrained` may be anything
        logger.warning("the final model could not be logged completely: %s", error)
