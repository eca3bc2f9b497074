"""A line to be learnt in milliseconds, and a callback that writes down all events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from asynccb._ground.events import EVENTS, Event
from asynccb._state.control import FLAGS, TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks.base import TrainerCallback
from asynccb.trainer import Trainer

SPEED = ("runtime", "per_second")


class Line(Dataset[dict[str, Any]]):
    """Points near y = 2x + 3, as mappings."""

    def __init__(self, length: int = 64, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(length, generator=generator)
        self.y = 2 * self.x + 3 + 0.1 * torch.randn(length, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index], "labels": self.y[index]}


class Stream(IterableDataset[dict[str, Any]]):
    """The same points, one by one, without a length."""

    def __init__(self, length: int = 64) -> None:
        self.line = Line(length)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.line[index] for index in range(len(self.line)))


class Model(nn.Module):
    """
    A line; `dropout` makes it draw random numbers.

    It counts its parameters as models of transformers do, so that operations can be counted.
    """

    main_input_name = "x"

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.0))
        self.b = nn.Parameter(torch.tensor(0.0))
        self.dropout = nn.Dropout(dropout)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters."""
        return 2

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        y = self.dropout(x) * self.a + self.b
        if labels is None:
            return (y,)
        return nn.functional.mse_loss(y, labels), y


Hook = Callable[[TrainerState, TrainerControl], None]


class Recorder(TrainerCallback):
    """Write down each event with its step and flags, after running the hook given for it."""

    def __init__(self, **hooks: Hook) -> None:
        self.hooks = hooks
        self.events: list[str] = []
        self.steps: list[int] = []
        self.flags: list[set[str]] = []
        self.logs: list[dict[str, Any]] = []


def _recording(event: Event) -> Callable[..., None]:
    def hook(
        self: Recorder,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if event in self.hooks:
            self.hooks[event](state, control)
        self.events.append(event)
        self.steps.append(state.global_step)
        self.flags.append({flag for flag in FLAGS if getattr(control, flag)})
        if event == Event.LOG:
            self.logs.append(dict(kwargs["logs"]))

    return hook


for _event in EVENTS:
    setattr(Recorder, _event, _recording(_event))


def arguments(directory: Path, **settings: Any) -> TrainingArguments:
    """Arguments for a quick and quiet run."""
    given = {"report_to": "none", "use_cpu": True, "learning_rate": 0.1, "disable_tqdm": True}
    return TrainingArguments(str(directory), **(given | settings))


def train(
    directory: Path,
    *callbacks: Any,
    model: nn.Module | None = None,
    resume: Path | None = None,
    given: dict[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """Train on 64 points in batches of 8, unless told otherwise; `given` goes to the Trainer."""
    more: dict[str, Any] = {"train_dataset": Line(), "eval_dataset": Line(16, seed=1)}
    with Trainer(
        Model() if model is None else model,
        arguments(directory, **settings),
        callbacks=list(callbacks),
        **(more | (given or {})),
    ) as trainer:
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The model's weights."""
    return dict(trainer.model.state_dict())


def history(trainer: Trainer) -> list[dict[str, Any]]:
    """The log history without what depends on the clock."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(SPEED)}
        for entry in trainer.state.log_history
    ]
