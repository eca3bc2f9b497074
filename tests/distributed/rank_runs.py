"""What the ranks of `test_ranks.py` do with whole dispatchers; each returns what it saw."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import torch
import torch.distributed as dist

import asynccb
from asynccb import AgreementError, CallbackDispatcher, EarlyStoppingCallback, TrainerCallback
from asynccb._state.control import FLAGS
from asynccb.testing import no_sync
from tests.support.regression import Recorder, train, weights

LONGEST, LOG_EVERY = 30, 4
PATIENCE = 6.0
"""Seconds; the limit of ranks that one of them keeps waiting."""


class Stopper(TrainerCallback):
    """Ask for the stop from a step on, after a delay; without a step, never."""

    def __init__(self, step: int | None, delays: random.Random) -> None:
        self.step = step
        self.delays = delays

    async def decide(self, state: Any, control: Any) -> None:
        await anyio.sleep(self.delays.random() * 0.003)
        if self.step is not None and state.global_step >= self.step:
            control.should_training_stop = True
        control.should_save = state.global_step % 7 == 0


def stopper(event: str, lag: int, *about: Any, **attributes: Any) -> Stopper:
    """Return one that decides on an event with a lag."""

    async def hook(self: Stopper, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await self.decide(state, control)

    hooks = {event: asynccb.decides(lag=lag)(hook)}
    return type("Stopper", (Stopper,), hooks | attributes)(*about)  # type: ignore[no-any-return]


class Plan:
    """What is the same on all ranks in one run: who decides on what; and what each rank wants."""

    def __init__(self, seed: int, world: int) -> None:
        draw = random.Random(seed)
        self.deciders = [
            (
                draw.choice(["on_step_end", "on_log"]),
                draw.randrange(4),
                draw.choice(["all", "all", "world_zero"]),
            )
            for _ in range(draw.randrange(1, 4))
        ]
        self.stops = [
            [draw.randrange(2, LONGEST) if draw.random() < 0.5 else None for _ in self.deciders]
            for _ in range(world)
        ]

    def callbacks(self, rank: int, seed: int) -> list[Stopper]:
        delays = random.Random(f"{seed} {rank}")
        return [
            stopper(event, lag, stop, delays, ranks=ranks)
            for (event, lag, ranks), stop in zip(self.deciders, self.stops[rank], strict=True)
        ]

    def events(self, event: str) -> range:
        return (
            range(1, LONGEST + 1)
            if event == "on_step_end"
            else range(LOG_EVERY, LONGEST + 1, LOG_EVERY)
        )

    def end(self) -> int:
        """Return the step at which all ranks have to stop."""
        ends = [LONGEST]
        for rank, stops in enumerate(self.stops):
            for (event, lag, ranks), stop in zip(self.deciders, stops, strict=True):
                if stop is not None and (ranks == "all" or rank == 0):
                    ends += [step + lag for step in self.events(event) if step >= stop][:1]
        return min(ends)

    def meetings(self) -> int:
        """Return how often the ranks have to meet: where something is due, and only there."""
        at_boundaries, at_logs = set(), set()
        for event, lag, _ in self.deciders:
            prompt = lag == 0 and event == "on_log"
            (at_logs if prompt else at_boundaries).update(s + lag for s in self.events(event))
        return len([step for step in [*at_boundaries, *at_logs] if step <= self.end()])


def one_run(rank: int, world: int, seed: int, folder: str) -> dict[str, Any]:
    plan = Plan(seed, world)
    flags = []
    with CallbackDispatcher(plan.callbacks(rank, seed), directory=f"{folder}/{rank}") as run:
        control = run.control
        while not control.should_training_stop and run.state.global_step < LONGEST:
            control = run.step()
            if run.state.global_step % LOG_EVERY == 0:
                control = run.log({"loss": 1.0})
            flags.append([getattr(control, flag) for flag in FLAGS])
        meetings = run._run.decisions._agreement.meetings
    return {"flags": flags, "end": len(flags), "meetings": meetings}


def decide_at_random(rank: int, world: int, first: str, count: str) -> list[dict[str, Any]]:
    """Do many runs with drawn deciders, wishes and delays, on all ranks."""
    seeds = range(int(first), int(first) + int(count))
    with tempfile.TemporaryDirectory() as folder:
        return [one_run(rank, world, seed, folder) for seed in seeds]


def check(runs: list[list[dict[str, Any]]], seeds: range, world: int) -> None:
    """Compare each run on all ranks with the other ranks and with its plan."""
    for seed, *of_ranks in zip(seeds, *runs, strict=True):
        plan = Plan(seed, world)
        assert all(run == of_ranks[0] for run in of_ranks), seed
        assert of_ranks[0]["end"] == plan.end(), seed
        assert of_ranks[0]["meetings"] == plan.meetings(), seed


class RemoteStopper(TrainerCallback):
    """Ask, in the companion, for the stop at a step."""

    placement = "process"

    def __init__(self, step: int) -> None:
        self.step = step

    @asynccb.decides(lag=1)
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_training_stop = True


def decide_in_the_companion(rank: int, world: int, folder: str) -> int:
    """Stop where the last rank's companion says so."""
    callback = RemoteStopper(5 if rank == world - 1 else 1000)
    with CallbackDispatcher([callback], directory=f"{folder}/{rank}") as run:
        while not run.control.should_training_stop:
            run.step()
        return run.state.global_step


def request_on_one(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Ask for the stop on the last rank alone; train in step, as DDP does."""
    with CallbackDispatcher([], directory=f"{folder}/{rank}") as run:
        while not run.control.should_training_stop:
            dist.barrier()
            if rank == world - 1 and run.state.global_step == 3:
                run.request(should_training_stop=True)
            run.step()
        return {"end": run.state.global_step, "meetings": run._run.decisions._agreement.meetings}


def stop_early(rank: int, world: int, folder: str) -> int:
    """Evaluate on each rank's own data; only on the last rank is nothing learnt from step 4 on."""
    args = asynccb.TrainingArguments(
        f"{folder}/{rank}",
        report_to="none",
        eval_strategy="steps",
        metric_for_best_model="loss",
        greater_is_better=False,
        load_best_model_at_end=False,
    )
    with CallbackDispatcher([EarlyStoppingCallback(early_stopping_patience=3)], args=args) as run:
        run.state.best_metric = 0.5
        while not run.control.should_training_stop and run.state.global_step < LONGEST:
            worse = rank == world - 1 and run.state.global_step >= 3
            run.step(metrics={"eval_loss": 0.9 if worse else 0.1})
        return run.state.global_step


class RanksDiffer:
    """Give each rank another metric: on the last one nothing gets better from step 4 on."""

    def __init__(self, rank: int, world: int) -> None:
        self.is_last = rank == world - 1
        self.evaluations = 0

    def __call__(self, prediction: Any) -> dict[str, float]:
        self.evaluations += 1
        worse = self.is_last and self.evaluations > 3
        return {"quality": 0.0 if worse else float(self.evaluations)}


def train_with_early_stopping(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Have DDP train until the last rank's own metric has not improved for two evaluations."""
    return report(
        train(
            Path(folder),
            EarlyStoppingCallback(early_stopping_patience=2),
            given={"compute_metrics": RanksDiffer(rank, world)},
            num_train_epochs=9,
            save_strategy="no",
            eval_strategy="steps",
            eval_steps=1,
            metric_for_best_model="quality",
        )
    )


def resume_after_a_save(rank: int, world: int, folder: str) -> list[Any]:
    """Decide on a save, on the last rank alone; resume, where rank 0 has to be asked again."""
    checkpoint, seen = Path(folder, "checkpoint"), []
    if rank == 0:
        checkpoint.mkdir(parents=True)
    dist.barrier()
    state = None
    for resumed in (False, True):
        callback = stopper("on_save", 2, 2 if rank == world - 1 else None, random.Random(rank))
        begun = asynccb.TrainerState(global_step=2 if resumed else 0)
        with CallbackDispatcher([callback], directory=f"{folder}/{rank}", state=begun) as run:
            if state is None:
                run.step()
                run.step()
                state = run.state_dict()
                run.emit_save(checkpoint)
            else:
                run.load_state_dict(state)
                run.emit_save_again(checkpoint)
            seen.append([run.step().should_training_stop for _ in range(2)])
        dist.barrier()
        if rank == 0:
            seen.append(sorted(path.name for path in checkpoint.iterdir()))
            Path(checkpoint, "on_save_0.json").unlink()
        dist.barrier()
    return seen


def report(trainer: asynccb.Trainer) -> dict[str, Any]:
    return {
        "end": trainer.state.global_step,
        "weights": {name: float(value) for name, value in weights(trainer).items()},
        "files": sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*")),
    }


def train_with_a_decider(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Have one rank's decider end a Trainer's run at step 5, which saves nothing."""
    callback = stopper("on_step_end", 1, 4 if rank == world - 1 else None, random.Random(rank))
    return report(train(Path(folder), callback, num_train_epochs=9, save_strategy="no"))


def train_until_terminated(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Have SIGTERM come to one rank after step 3."""

    def terminate(state: Any, control: Any) -> None:
        if rank == world - 1 and state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"num_train_epochs": 10_000, "save_strategy": "no", "enable_jit_checkpoint": True}
    return report(train(Path(folder), Recorder(on_step_end=terminate), **settings))


def stay(rank: int, world: int, folder: str, first: str, count: str) -> dict[str, Any]:
    """Do in turn all in which no rank is lost."""
    return {
        "random": decide_at_random(rank, world, first, count),
        "companion": decide_in_the_companion(rank, world, f"{folder}/companion"),
        "saved": resume_after_a_save(rank, world, f"{folder}/saved"),
        "request": request_on_one(rank, world, f"{folder}/request"),
        "early": stop_early(rank, world, f"{folder}/early"),
        "early in a trainer": train_with_early_stopping(rank, world, f"{folder}/early-ddp"),
        "decider": train_with_a_decider(rank, world, f"{folder}/decider"),
        "terminated": train_until_terminated(rank, world, f"{folder}/terminated"),
    }


def error_of_steps(run: CallbackDispatcher) -> str:
    try:
        for _ in range(LONGEST):
            run.step()
    except AgreementError as error:
        return str(error)
    raise AssertionError("the ranks have agreed at every step")


def fall_apart(rank: int, world: int, folder: str) -> list[str]:
    """Decide with other callbacks than the others on rank 1; then, as before, but rank 1 dies."""
    errors = []
    args = impatient(folder)
    more = [stopper("on_log", 1, None, random.Random())]
    odd = stopper("on_step_end", 2 if rank == 1 else 1, None, random.Random())
    directory = f"{folder}/{rank}"
    with CallbackDispatcher([odd, *more], args=args, directory=directory) as run:
        errors.append(error_of_steps(run))
    even = stopper("on_step_end", 1, None, random.Random())
    with CallbackDispatcher([even], args=args, directory=directory) as run:
        run.step()
        run.step()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        errors.append(error_of_steps(run))
    return errors


def stall(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Decide at every step on all ranks, and have rank 1 stand still from step 3 on."""
    callback, args = stopper("on_step_end", 1, None, random.Random()), impatient(folder)
    with CallbackDispatcher([callback], args=args, directory=f"{folder}/{rank}") as run:
        for _ in range(3):
            run.step()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        begin = time.monotonic()
        return {"error": error_of_steps(run), "seconds": time.monotonic() - begin}


def impatient(folder: str) -> asynccb.TrainingArguments:
    """Return arguments with a short limit for what ranks wait for."""
    return asynccb.TrainingArguments(folder, report_to="none", ddp_timeout=PATIENCE)


def meet_beside_nccl(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Agree at every boundary while the GPU is busy; the last rank stops all after step 6."""
    gradient = torch.ones(1, device=torch.device("cuda", rank))
    callback = stopper("on_step_end", 1, 6 if rank == world - 1 else None, random.Random())
    left_busy = []
    with CallbackDispatcher([callback], directory=f"{folder}/{rank}") as run:
        while not run.control.should_training_stop:
            dist.all_reduce(gradient)
            torch.cuda._sleep(500_000_000)  # a quarter of a second
            with no_sync():
                run.step()
            left_busy.append(not torch.cuda.current_stream().query())
    return {"end": run.state.global_step, "left busy": left_busy}
