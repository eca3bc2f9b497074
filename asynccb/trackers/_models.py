"""Which folder of a training is its model, for trackers that store models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from asynccb._events import Event
from asynccb._run import PlainArguments
from asynccb.delivery.uploads import Folder

if TYPE_CHECKING:
    from asynccb._state import StateSnapshot

FINAL_MODEL: Final = "final_model"
"""What a training's last model is called."""


class _Reject(Protocol):
    def __call__(self, what: str, why: str, /) -> None: ...


def model_folder(
    event: Event, args: PlainArguments, state: StateSnapshot, reject: _Reject
) -> Folder | None:
    """
    Return the checkpoint of a save; at the end of training, the best or the last one.

    The best one is taken where `load_best_model_at_end` is set. Nothing but the arguments and the
    state says where a model is; without `output_dir`, `reject` is called.
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
