"""
The state of a run, mutable for the loop and frozen for async hooks.

Promises: a snapshot never changes, costs no copy of the log history, and is a `TrainerState`, so
that annotations and `isinstance` hold in every hook. What it refers to must not be changed in
place.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from asynccb._ground.exceptions import DefinitionError
from asynccb._state.log_history import LogHistory, without_late
from asynccb.arguments.intervals import absolute_steps

if TYPE_CHECKING:
    from asynccb.arguments.training_arguments import TrainingArguments


class ExportableState:
    """
    Make a callback's own state part of every checkpoint.

    Implement `state()` to return `{"args": constructor arguments, "attributes": attributes set
    afterwards}`, both of plain JSON values; `from_state` builds the object again.
    """

    in_checkpoint: ClassVar[bool] = True
    """Whether checkpoints store the state; a tracker stores its own in the run's journal."""

    def state(self) -> dict[str, Any]:
        """Return the constructor's arguments and the attributes to set afterwards."""
        raise NotImplementedError(
            f"{type(self).__name__} is an ExportableState and must define state()"
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build an object of this class from what `state()` returned."""
        instance = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(instance, name, value)
        return instance


class _Trains(Protocol):
    """What `init_training_references` reads of a trainer; the search fields may be missing."""

    args: TrainingArguments


@dataclass
class TrainerState:
    """
    Describe how far a run has come; saved with every checkpoint.

    Fields, defaults and meaning are those of transformers. Intervals (`logging_steps`,
    `eval_steps`, `save_steps`) are absolute numbers of steps here, resolved by `compute_steps`.
    `epoch` is fractional. `stateful_callbacks` takes a list of `ExportableState` objects or the
    dict read from a file, and holds a dict: class name to state, or to a list of states where
    several callbacks share a class. Raises `DefinitionError` for an object in that list that
    exports no state.
    """

    epoch: float = 0
    global_step: int = 0
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, Any]] = LogHistory()  # type: ignore[assignment]  # noqa: RUF009
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, str | float | int | bool] | None = None
    stateful_callbacks: dict[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given: object = self.stateful_callbacks
        if given is None:
            self.stateful_callbacks = {}
        elif not isinstance(given, dict):
            self.stateful_callbacks = export_states(given)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        self.log_history  # noqa: B018 - completes it
        return without_late(self.__dict__)

    def compute_steps(self, args: TrainingArguments, max_steps: int) -> None:
        """Resolve the intervals: one below 1 is a share of `max_steps`; None keeps what was set."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            interval = getattr(args, name)
            if interval is not None:
                setattr(self, name, absolute_steps(interval, max_steps))

    def init_training_references(
        self, trainer: _Trains, max_steps: int, num_train_epochs: int, trial: Any = None
    ) -> None:
        """Set what a training run knows at its start: lengths, rank flags and the search trial."""
        hp_name, its_trial = getattr(trainer, "hp_name", None), getattr(trainer, "_trial", None)
        if hp_name is not None and its_trial is not None:
            self.trial_name = hp_name(its_trial)
        self.trial_params = None
        if trial is not None:
            params = getattr(trial, "params", trial)
            self.trial_params = dict(params)
        self.max_steps = max_steps
        self.num_train_epochs = num_train_epochs
        self.is_local_process_zero = trainer.args.local_process_index == 0
        self.is_world_process_zero = trainer.args.process_index == 0

    def save_to_json(self, json_path: str) -> None:
        """Write the state as strict JSON, atomically: a reader sees the old file or the new one."""
        from asynccb._state.json_file import save_state

        save_state(self, json_path)

    @classmethod
    def load_from_json(cls, json_path: str) -> Self:
        """
        Read a state that we or transformers wrote.

        An unknown key is named in a warning and left out. Raises `StateFileError` where the file is
        no JSON object or a field has a value of the wrong kind.
        """
        from asynccb._state.json_file import load_state

        return load_state(cls, json_path)


def export_states(callbacks: Sequence[object]) -> dict[str, Any]:
    """Collect the callbacks' states by class name; several of one class become a list, in order."""
    states: dict[str, Any] = {}
    for callback in callbacks:
        if not callable(getattr(callback, "state", None)):
            raise DefinitionError(
                f"stateful_callbacks takes objects that export their state, not {callback!r}: "
                "inherit from asynccb.ExportableState and define state()"
            )
        name = type(callback).__name__
        state = callback.state()  # type: ignore[attr-defined]
        if name not in states:
            states[name] = state
        elif isinstance(states[name], list):
            states[name].append(state)
        else:
            states[name] = [states[name], state]
    return states


STATE_FIELDS: Final = tuple(f.name for f in fields(TrainerState))
SLOW_FIELDS: Final = tuple(
    name for name in STATE_FIELDS if name not in ("epoch", "global_step", "log_history")
)
"""Fields that a record carries only when they have changed; the step and epoch are in each."""

_read_slow_fields = operator.attrgetter(*SLOW_FIELDS)
