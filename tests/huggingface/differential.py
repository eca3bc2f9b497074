"""The same run in our Trainer and in that of transformers: cases, and what a run records."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asynccb
from asynccb._ground.events import EVENTS, Event
from asynccb._state.control import FLAGS
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import SPEED, Line, Model, Recorder, arguments

STRATEGIES = ("no", "steps", "epoch")
ASKS = ("should_log", "should_evaluate", "should_save")


@dataclass(frozen=True)
class Seen:
    """What a callback sees of one event."""

    event: str
    step: int
    epoch: float
    flags: frozenset[str]
    keywords: frozenset[str]
    given: frozenset[str]
    """Keywords that are not None."""
    logs: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass
class Record:
    """What is compared of a run, without what depends on the clock or on the directory."""

    seen: list[Seen]
    given: list[dict[str, Any]]
    """The logs and metrics that the events were emitted with."""
    history: list[dict[str, Any]]
    weights: dict[str, float]
    state: dict[str, Any]
    stored: dict[str, dict[str, Any]]
    """The state in each checkpoint, by the folder's name."""
    output: dict[str, Any]
    """What `train` returned."""


@dataclass(frozen=True)
class Case:
    """One run: its arguments, and what its callbacks do."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    sets: tuple[str, tuple[str, ...], int] | None = None
    """Event, flags, and the time that the event comes by (from 0) at which they are set."""
    patience: tuple[int, float] | None = None
    """Patience and threshold of early stopping."""
    resume: int | None = None
    """Step of the checkpoint that a second run goes on from, which is the one recorded."""

    def __str__(self) -> str:
        return self.name


class Watch(Recorder):
    """Record all that is compared, after setting flags."""

    def __init__(self, sets: tuple[str, tuple[str, ...], int] | None) -> None:
        super().__init__()
        self.records: list[Seen] = []
        self.given: list[dict[str, Any]] = []
        self.sets = sets
        self.times = itertools.count()

    def record(self, event: str, state: Any, control: Any, keywords: dict[str, Any]) -> None:
        if self.sets is not None and event == self.sets[0] and next(self.times) == self.sets[2]:
            for flag in self.sets[1]:
                setattr(control, flag, True)
        figures = (keywords.get("logs") or {}) | (keywords.get("metrics") or {})
        if figures:
            self.given.append(_timeless(figures))
        self.records.append(
            Seen(
                event,
                state.global_step,
                float(state.epoch),
                frozenset(flag for flag in FLAGS if getattr(control, flag)),
                frozenset(keywords),
                frozenset(name for name, value in keywords.items() if value is not None),
                tuple(_timeless(keywords.get("logs") or {})),
                tuple(_timeless(keywords.get("metrics") or {})),
            )
        )


def _by_clock(name: str) -> bool:
    return name.endswith((*SPEED, "preparation_time"))


def _timeless(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if not _by_clock(name)}


def _hook(event: Event) -> Callable[..., None]:
    def hook(self: Watch, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        self.record(event, state, control, keywords)

    return hook


for _event in EVENTS:
    setattr(Watch, _event, _hook(_event))


def run_ours(case: Case, directory: Path) -> Record:
    """Run a case in our Trainer."""

    def run(watch: Watch, resume: Path | None = None) -> tuple[Any, Any]:
        stopping = [asynccb.EarlyStoppingCallback(*case.patience)] if case.patience else []
        args = arguments(directory, **case.settings)
        with asynccb.Trainer(Model(), args, callbacks=[*stopping, watch], **_data()) as trainer:
            return trainer, trainer.train(resume_from_checkpoint=resume)

    return _record(case, directory, run)


def run_theirs(case: Case, directory: Path) -> Record:
    """Run a case in `transformers.Trainer`."""

    def run(watch: Watch, resume: Path | None = None) -> tuple[Any, Any]:
        stopping = [transformers.EarlyStoppingCallback(*case.patience)] if case.patience else []
        trainer = their_trainer(directory, *stopping, watch, given=_data(), **case.settings)
        return trainer, trainer.train(
            resume_from_checkpoint=None if resume is None else str(resume)
        )

    return _record(case, directory, run)


def _data() -> dict[str, Any]:
    return {"train_dataset": Line(8), "eval_dataset": Line(4, seed=1)}


def _record(case: Case, directory: Path, run: Callable[..., tuple[Any, Any]]) -> Record:
    watch = Watch(case.sets)
    trainer, output = run(watch)
    if case.resume is not None:
        watch = Watch(case.sets)
        trainer, output = run(watch, resume=directory / f"checkpoint-{case.resume}")
    stored = sorted(directory.glob("checkpoint-*/trainer_state.json"))
    return Record(
        seen=watch.records,
        given=watch.given,
        history=[_timeless(entry) for entry in trainer.state.log_history],
        weights={name: float(value) for name, value in trainer.model.state_dict().items()},
        state=_plain(dataclasses.asdict(trainer.state)),
        stored={path.parent.name: _plain(json.loads(path.read_text())) for path in stored},
        # The printer of transformers takes `total_flos` out of what `train` returns.
        output={n: v for n, v in _timeless(output.metrics).items() if n != "total_flos"}
        | {"steps": output.global_step},
    )


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state's fields, except the history, the states of callbacks, and directories."""
    best = state["best_model_checkpoint"]
    left_out = ("log_history", "stateful_callbacks", "best_model_checkpoint")
    plain = {name: value for name, value in state.items() if name not in left_out}
    return plain | {"best": None if best is None else Path(best).name}


BASE: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "num_train_epochs": 2,
}
"""8 samples: 4 batches an epoch, so 8 steps, or 4 with groups of two batches."""
STEPS: dict[str, Any] = {"logging_steps": 3, "eval_steps": 2, "save_steps": 3}


def cases() -> Iterator[Case]:
    """Give all cases."""
    yield from _strategies()
    yield from _lengths()
    yield from _best()
    yield from _resumed()
    yield from _flags()


def _strategies() -> Iterator[Case]:
    for log, evaluate, save in itertools.product(STRATEGIES, repeat=3):
        settings = {"logging_strategy": log, "eval_strategy": evaluate, "save_strategy": save}
        yield Case(f"log-{log}-eval-{evaluate}-save-{save}", {**BASE, **STEPS, **settings})


def _lengths() -> Iterator[Case]:
    every = {**BASE, **STEPS, "eval_strategy": "steps"}
    epochs = dict.fromkeys(("logging_strategy", "eval_strategy", "save_strategy"), "epoch")
    for size in (2, 3, 8):
        yield Case(f"accumulation-{size}", {**every, "gradient_accumulation_steps": size})
        by_epoch = {**BASE, **epochs, "gradient_accumulation_steps": size}
        yield Case(f"accumulation-{size}-epochs", by_epoch)
    for steps in (0, 1, 5, 11):
        yield Case(f"max-steps-{steps}", {**every, "max_steps": steps})
    yield Case("epochs-1.5", {**every, "num_train_epochs": 1.5})
    yield Case("eval-delay-steps", {**every, "eval_delay": 5})
    yield Case("eval-delay-beyond", {**every, "eval_delay": 50})
    yield Case("eval-delay-epochs", {**BASE, **epochs, "eval_delay": 1.5})
    yield Case("eval-on-start", {**every, "eval_on_start": True})
    yield Case("first-step", {**every, "logging_first_step": True})
    yield Case("first-step-alone", {**BASE, "logging_strategy": "no", "logging_first_step": True})
    shares = {"logging_steps": 0.25, "eval_steps": 0.5, "save_steps": 0.5}
    yield Case("shares", {**every, **shares})
    yield Case("save-steps-0", {**every, "save_steps": 0})
    yield Case("defaults", dict(BASE))
    for tokens in ("all", "non_padding", True):
        yield Case(f"tokens-{tokens}", {**every, "include_num_input_tokens_seen": tokens})
    learning = {"lr_scheduler_type": "cosine", "warmup_steps": 2, "max_grad_norm": 0.5}
    yield Case("schedule", {**every, **learning, "weight_decay": 0.1, "logging_steps": 1})


def _best() -> Iterator[Case]:
    steps = {
        **BASE, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
        "metric_for_best_model": "loss", "learning_rate": 1.5,
    }  # fmt: skip
    epochs = {**BASE, **dict.fromkeys(("eval_strategy", "save_strategy"), "epoch")}
    for patience, threshold in ((1, 0.0), (2, 0.0), (1, 0.5), (1, 1e9)):
        name = f"early-stopping-{patience}-{threshold:g}"
        yield Case(name, steps, patience=(patience, threshold))
    by_epoch = {**epochs, "metric_for_best_model": "loss", "learning_rate": 5.0}
    yield Case("early-stopping-epochs", {**by_epoch, "num_train_epochs": 4}, patience=(1, 0.0))
    yield Case("best-loaded", {**steps, "load_best_model_at_end": True})
    yield Case("best-limit-1", {**steps, "load_best_model_at_end": True, "save_total_limit": 1})
    yield Case("best-beside-saves", {**steps, "save_steps": 8, "load_best_model_at_end": True})
    yield Case("save-best", {**steps, "save_strategy": "best"})
    yield Case("save-best-greater", {**steps, "save_strategy": "best", "greater_is_better": True})
    yield Case("save-limit-2", {**steps, "save_total_limit": 2})


def _resumed() -> Iterator[Case]:
    every = {**BASE, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 1}
    for step in (1, 3, 4, 6, 8):
        yield Case(f"resume-{step}", every, resume=step)
    groups = {**every, "gradient_accumulation_steps": 2}
    yield Case("resume-3-accumulation", groups, resume=3)
    yield Case("resume-3-windows", {**every, "logging_steps": 2}, resume=3)
    epochs = dict.fromkeys(("logging_strategy", "eval_strategy", "save_strategy"), "epoch")
    yield Case("resume-4-epochs", {**BASE, **epochs}, resume=4)


def _flags() -> Iterator[Case]:
    settings = {
        **BASE, "gradient_accumulation_steps": 2, "logging_strategy": "no", "save_strategy": "no",
    }  # fmt: skip
    evaluated = {**settings, "logging_strategy": "steps", "logging_steps": 2}
    evaluated |= {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    evaluated |= {"save_steps": 2}
    for event in EVENTS:
        if event in (Event.PUSH_BEGIN, Event.PREDICT):
            continue
        for flags in (ASKS, ("should_epoch_stop",), ("should_training_stop",)):
            # Events of an evaluation, a log or a save come by only where these are asked for.
            has = event in (Event.LOG, Event.EVALUATE, Event.PREDICTION_STEP, Event.SAVE)
            name = f"{event}-sets-{'asks' if flags is ASKS else flags[0].removeprefix('should_')}"
            yield Case(name, evaluated if has else settings, sets=(event, flags, 0))
    for event in (Event.STEP_BEGIN, Event.STEP_END, Event.SUBSTEP_END, Event.LOG, Event.EPOCH_END):
        for flag in ASKS:
            has = event == Event.LOG
            name = f"{event}-sets-{flag.removeprefix('should_')}-second"
            yield Case(name, evaluated if has else settings, sets=(event, (flag,), 1))
