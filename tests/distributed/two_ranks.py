"""What each of two ranks does in `test_two_ranks.py`: on GPUs where there are two, else on CPUs."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import asynccb
from asynccb import AgreementError, CallbackDispatcher, PrinterCallback, Trainer
from asynccb.testing import no_sync
from tests.distributed.rank_runs import LONGEST, decide_at_random, stopper
from tests.staging.device_lanes import InCompanion
from tests.support.regression import Line, Model, Recorder, arguments

CUDA = torch.cuda.device_count() > 1
LOGGED = {"max_steps": 14, "logging_steps": 1}


def profiled() -> profile:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * CUDA)]
    return profile(activities=activities, acc_events=True)  # or it warns


def waits_and_collectives(seen: profile) -> Counter[str]:
    """Count what a profile has of waits for a device, and of collectives by their backend."""
    names = [event.name.lower() for event in seen.events() or []]
    collectives = Counter(name for name in names if name.startswith(("nccl", "gloo")))
    return collectives + Counter(waits=sum("synchronize" in name for name in names))


class OnAllRanks(InCompanion):
    ranks = "all"


def log_bits(rank: int, folder: str) -> bool:
    """Log random values from this rank's device; tell whether they came bit for bit."""
    device = torch.device("cuda", rank) if CUDA else torch.device("cpu")
    path = Path(folder, f"arrived-{rank}")
    path.touch()
    values = torch.randn(3000, 3, device=device)
    callback = OnAllRanks(path)
    with CallbackDispatcher([callback], directory=Path(folder, f"bits-{rank}")) as run:
        run.step(logs=dict(zip("abc", values[0], strict=True)))
        with no_sync() if CUDA else nullcontext():
            for row in values[1:]:
                run.step(logs=dict(zip("abc", row, strict=True)))
        assert run.flush(60)
    return [[logs[name] for name in "abc"] for logs in callback.read()] == values.tolist()


def decide(rank: int, world: int, first: str, count: str) -> dict[str, Any]:
    """Do runs with random deciders; say what a profile has seen of waits and collectives."""
    with profiled() as nothing:
        pass
    with profiled() as seen:
        runs = decide_at_random(rank, world, first, count)
    own = waits_and_collectives(nothing)  # the profiler waits for the device at its end
    return {"runs": runs, "seen": waits_and_collectives(seen) - own}


class Watched(Recorder):
    """Profile steps 3 to 12 of a training."""

    def __init__(self) -> None:
        super().__init__(on_step_begin=self._begin, on_step_end=self._end)
        self.profile = profiled()

    def _begin(self, state: Any, control: Any) -> None:
        if state.global_step == 2:
            self.profile.start()

    def _end(self, state: Any, control: Any) -> None:
        if state.global_step == 12:
            self.profile.stop()


class PartlyUsed(Model):
    """Have a parameter that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(3))


def train(folder: str, *callbacks: Any, **settings: Any) -> dict[str, list[float]]:
    """Train on two points a rank and step; return the losses of this rank, and those logged."""
    own: list[torch.Tensor] = []

    def compute(outputs: Any, labels: Any) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(outputs[0], labels)
        own.append(loss.detach())
        return loss

    given = {"per_device_train_batch_size": 2, "save_strategy": "no", "use_cpu": not CUDA}
    model = PartlyUsed() if settings.get("ddp_find_unused_parameters") else Model()
    with Trainer(
        model,
        arguments(Path(folder), **given | settings),
        train_dataset=Line(),
        callbacks=list(callbacks),
        compute_loss_func=compute,
    ) as trainer:
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    entries = trainer.state.log_history
    return {
        "own": [float(loss) for loss in own],
        "logged": [float(entry["loss"]) for entry in entries if "loss" in entry],
    }


def share_losses(folder: str) -> dict[str, Any]:
    """Train with logs of each step and without; for unused parameters; and in small portions."""
    watch, quiet = Watched(), Watched()
    result = {
        "each": train(f"{folder}/each", watch, **LOGGED),
        "unused": train(f"{folder}/unused", **LOGGED, ddp_find_unused_parameters=True),
        "portions": train(
            f"{folder}/portions", max_steps=6, logging_steps=2, gradient_accumulation_steps=2
        ),
    }
    train(f"{folder}/quiet", quiet, max_steps=14, logging_strategy="no")
    seen = [waits_and_collectives(watch.profile), waits_and_collectives(quiet.profile)]
    return result | {"seen": seen}


def stay(rank: int, world: int, folder: str, first: str, count: str) -> dict[str, Any]:
    """Do in turn all in which no rank is lost."""
    return {
        "bits": log_bits(rank, folder),
        "decided": decide(rank, world, first, count),
        "shared": share_losses(folder),
    }


def lose_one(rank: int, world: int, folder: str, tracking_uri: str) -> str:
    """Train with a decider and two trackers until rank 1 is killed; return what rank 0 is told."""

    def die(state: Any, control: Any) -> None:
        if rank == 1 and state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    callbacks = [
        stopper("on_step_end", 1, None, random.Random(rank)),
        asynccb.TensorBoardCallback(logging_dir=f"{folder}/board"),
        asynccb.MLflowCallback(tracking_uri=tracking_uri, experiment_name="lost rank"),
        Recorder(on_step_end=die),
    ]
    try:
        train(folder, *callbacks, max_steps=LONGEST, logging_steps=1, ddp_timeout=60)
    except AgreementError as error:
        return str(error)
    raise AssertionError("nobody has missed rank 1")
