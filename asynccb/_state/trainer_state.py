"""
The state of a run, mutable for the loop and frozen for async hooks.

Promises: a snapshot never changes, does not copy the log history, and is a `TrainerState`, so that
annotations and `isinstance` checks hold in every hook. The objects that it refers to must not be
changed in place.
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
    A base class for callbacks whose own state is part of every checkpoint.

    Implement `state()` to return `{"args": constructor arguments, "attributes": attributes set
    afterwards}`, both of plain JSON values. Either may be left out. `from_state` builds the object
    again.
    """

    in_checkpoint: ClassVar[bool] = True
    """Whether checkpoints contain the state; a tracker's state is in the run's journal instead. On
    an object of another class the attribute is the user's own."""

    def state(self) -> dict[str, Any]:
        """Return the constructor's arguments and the attributes to set afterwards."""
        raise NotImplementedError(
            f"{type(self).__name__} is an ExportableState and must define state()"
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build an object of this class from the result of `state()`."""
        whole = whole_state(state)
        instance = cls(**whole["args"])
        for name, value in whole["attributes"].items():
            setattr(instance, name, value)
        return instance


def whole_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a callback's state with both keys, which `state()` may leave out, as in theirs."""
    return {**state, "args": state.get("args") or {}, "attributes": state.get("attributes") or {}}


def exports_state(thing: object) -> bool:
    """
    Return whether an object defines `state()` and its class `from_state`, as ours and theirs do.

    A `__getattr__`, which may answer to any name, is not asked.
    """
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        own = {}
    state = own["state"] if "state" in own else getattr(type(thing), "state", None)
    return callable(state) and callable(getattr(type(thing), "from_state", None))


class _Trains(Protocol):
    """The part of a trainer that `init_training_references` needs; search fields are optional."""

    args: TrainingArguments


@dataclass
class TrainerState:
    """
    The progress of a run; saved with every checkpoint.

    Fields, defaults and meaning are the same as in transformers. Intervals (`logging_steps`,
    `eval_steps`, `save_steps`) are absolute numbers of steps here, resolved by `compute_steps`.
    `epoch` is fractional. A `total_flos` of 0 means that the number is unknown; no log and no file
    then contains it. `stateful_callbacks` accepts a list of `ExportableState` objects or the dict
    read from a file, and becomes a dict from a class's name to its callback's state, or to a list
    of states if several callbacks share a class. Raises `DefinitionError` if an object in the list
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
        self.log_history  # noqa: B018 - adds all late entries to the list
        return without_late(self.__dict__)

    def compute_steps(self, args: TrainingArguments, max_steps: int) -> None:
        """
        Set the intervals to absolute numbers of steps.

        An interval below 1 is a share of `max_steps`; None leaves the state's interval unchanged.
        """
        for name in ("logging_steps", "eval_steps", "save_steps"):
            interval = getattr(args, name)
            if interval is not None:
                setattr(self, name, absolute_steps(interval, max_steps))

    def init_training_references(
        self, trainer: _Trains, max_steps: int, num_train_epochs: int, trial: Any = None
    ) -> None:
        """Set the fields known at the start of a run: lengths, rank flags and the search trial."""
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
        """Write the state as strict JSON, atomically: readers see the old file or the new one."""
        from asynccb._state.json_file import save_state

        save_state(self, json_path, leave_out=() if self.total_flos else ("total_flos",))

    @classmethod
    def load_from_json(cls, json_path: str) -> Self:
        """
        Read a state that asynccb or transformers wrote.

        An unknown key is named in a warning and left out. Raises `StateFileError` if the file does
        not contain a JSON object, or if a field has a value of the wrong type.
        """
        from asynccb._state.json_file import load_state

        return load_state(cls, json_path)


def export_states(callbacks: Sequence[object]) -> dict[str, Any]:
    """
    Return the callbacks' states by class name.

    If several callbacks share a class, its value is a list of their states, in order.
    """
    states: dict[str, Any] = {}
    for callback in callbacks:
        if not callable(getattr(callback, "state", None)):
            raise DefinitionError(
                f"stateful_callbacks accepts objects that export their state, not {callback!r}: "
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
"""Fields that a record contains only after a change; step and epoch are in every record."""

_read_slow_fields = operator.attrgetter(*SLOW_FIELDS)
