"""
Checkpoints: folders `checkpoint-<step>` that are complete or do not exist.

    checkpoint-500/
        model.safetensors       weights; a model with `save_pretrained` chooses its own files
        optimizer.pt scheduler.pt scaler.pt
        rng_state.pth           random generators; rng_state_<rank>.pth among several ranks
        loop.pt                 position in the data and loss sums; loop_<rank>.pt likewise
        training_args.json      the arguments, without secrets, for people to read
        decisions.jsonl         the trace so far, if anything was decided
        trainer_state.json      written last
        on_save.json            decisions on the checkpoint's `on_save`, added when they arrive

Promises: a folder is renamed to its final name when every file except `on_save.json` is written. A
reader, also after a run was killed during a save, therefore never sees part of a checkpoint. Every
part is read with `weights_only=True`. Not promised: a checkpoint may not survive a power cut,
because nothing is forced to the disk, which would cost the training thread seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from asynccb._ground.exceptions import ConfigurationError, naming_damage
from asynccb.distributed import process_group as distributed

logger = logging.getLogger("asynccb")

STATE_FILE = "trainer_state.json"
ARGUMENTS_FILE = "training_args.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return directory / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int | None:
    """Return the step in a checkpoint's name, or None for any other name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else None


def list_checkpoints(directory: Path) -> list[Path]:
    """Return a directory's checkpoints, lowest step first; [] if the directory does not exist."""
    if not directory.is_dir():
        return []
    steps = {step: path for path in directory.iterdir() if (step := step_of(path)) is not None}
    return [steps[step] for step in sorted(steps) if steps[step].is_dir()]


def last_checkpoint(directory: str | os.PathLike[str]) -> Path | None:
    """Return the checkpoint with the highest step, or None."""
    return next(reversed(list_checkpoints(Path(directory))), None)


def find_checkpoint(
    resume_from: str | os.PathLike[str] | bool | None, directory: Path
) -> Path | None:
    """
    Return the checkpoint that `resume_from_checkpoint` selects, as an absolute path.

    None and False select none, True selects the last one in `directory`, a path selects that
    folder. Raises `ConfigurationError` if the selected checkpoint does not exist.
    """
    if resume_from is None or resume_from is False:
        return None
    if resume_from is True:
        found = last_checkpoint(directory)
        if found is None:
            raise ConfigurationError(
                f"resume_from_checkpoint=True, but {directory} has no checkpoint-<step> folder; "
                "leave the argument out to start anew"
            )
        return found.absolute()
    path = Path(resume_from).expanduser().absolute()
    if not path.is_dir():
        raise ConfigurationError(
            f"resume_from_checkpoint={str(resume_from)!r} is not a directory; "
            "give the path of a checkpoint-<step> folder"
        )
    return path


def with_state(found: Path | None) -> Path | None:
    """Return the checkpoint; if it contains only weights, warn and return None."""
    if found is None or (found / STATE_FILE).is_file():
        return found
    logger.warning(
        "%s has no %s: only its weights are loaded, and training starts at step 0",
        *(found, STATE_FILE),
    )
    return None


@contextlib.contextmanager
def writing(checkpoint: Path, *, owner: bool) -> Iterator[Path]:
    """
    Yield a hidden folder for all ranks to write to; rename it to `checkpoint` after all have.

    `owner` is True on the rank that renames the folder. After an error the folder is deleted. Every
    rank waits for the others before and after it writes.
    """
    folder = checkpoint.with_name(f".{checkpoint.name}.incomplete")
    if owner:
        for left_by_a_killed_run in checkpoint.parent.glob(".checkpoint-*.incomplete"):
            shutil.rmtree(left_by_a_killed_run, ignore_errors=True)
    distributed.barrier()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    distributed.barrier()
    if owner:
        _replace(folder, checkpoint)
    distributed.barrier()
    shutil.rmtree(folder, ignore_errors=True)  # on machines without the owner's directory


def _replace(folder: Path, checkpoint: Path) -> None:
    """Rename the folder to the checkpoint's name; replace an earlier checkpoint of the step."""
    replaced = checkpoint.with_name(f".{checkpoint.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if checkpoint.exists():
        checkpoint.rename(replaced)
    folder.rename(checkpoint)
    shutil.rmtree(replaced, ignore_errors=True)


def save_part(part: Any, folder: Path, name: str) -> None:
    """Write one part; `load_part` can read it only if it contains just tensors and plain values."""
    torch.save(part, folder / name)


def load_part(folder: Path, name: str, device: torch.device | str = "cpu") -> Any:
    """
    Return one part, or None if it is missing or contains more than tensors and plain values.

    Raises `ConfigurationError` if the file is damaged.
    """
    path = folder / name
    if not path.is_file():
        return None
    with naming_damage(path, RuntimeError, EOFError, OSError):
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except pickle.UnpicklingError as error:
            logger.warning("%s is not loaded, because that might run code: %s", path, error)
            return None


def of_rank(name: str) -> str:
    """Return the name of this rank's own file: `loop.pt`, or `loop_3.pt` among several ranks."""
    return name if distributed.world_size() == 1 else named_by_rank(name, distributed.rank())


def named_by_rank(name: str, rank: int) -> str:
    """Return the name of a rank's own file among several ranks."""
    stem, dot, ending = name.partition(".")
    return f"{stem}_{rank}{dot}{ending}"


def rotate(written: Path, limit: int | None, best: str | None) -> None:
    """
    Delete the oldest checkpoints until `limit` are left.

    The one just written, from which a run resumes, and the best one are always kept. A limit of 1
    may therefore keep two. A limit of None or 0 keeps all.
    """
    if not limit:
        return
    checkpoints = list_checkpoints(written.parent)
    kept = {written.resolve()} | ({Path(best).resolve()} if best else set())
    others = [path for path in checkpoints if path.resolve() not in kept]
    for path in sorted(others, key=_written_at)[: max(len(checkpoints) - limit, 0)]:
        shutil.rmtree(path, ignore_errors=True)


def _written_at(checkpoint: Path) -> tuple[float, int]:
    """Return the sort key: time, then step, because an earlier run may have left higher steps."""
    state = checkpoint / STATE_FILE
    moment = (state if state.is_file() else checkpoint).stat().st_mtime
    return moment, step_of(checkpoint) or 0


def keep_only(directory: Path, best: Path) -> None:
    """Delete all checkpoints except `best`; if `best` is not in the directory, delete none."""
    checkpoints = list_checkpoints(directory)
    if best.resolve() in {path.resolve() for path in checkpoints}:
        for path in checkpoints:
            if path.resolve() != best.resolve():
                shutil.rmtree(path, ignore_errors=True)
