"""
What callbacks steer a run with: the flags, as in transformers, their frozen form, and decisions.

Promises: what decisions make of the flags depends on their order alone.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

from asynccb._exceptions import UndecidedError
from asynccb._state import ExportableState

FLAGS: Final = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)
"""The five flags; a flag's place here is its bit in a record. Append only: journals depend on
it."""


@dataclass
class TrainerControl(ExportableState):
    """
    Say what the loop is to do next; a `def` hook writes to it in place.

    Which event clears which flag is in `asynccb._events.RESETS`.
    """

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False

    def _new_training(self) -> None:
        self.should_training_stop = False

    def _new_epoch(self) -> None:
        self.should_epoch_stop = False

    def _new_step(self) -> None:
        self.should_save = False
        self.should_evaluate = False
        self.should_log = False

    def state(self) -> dict[str, Any]:
        """Return the five flags as constructor arguments."""
        return {"args": {name: getattr(self, name) for name in FLAGS}, "attributes": {}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a control from what `state()` returned."""
        return cls(**state["args"])


class FrozenControl(TrainerControl):
    """
    Show an async hook the control as it was when the event was emitted.

    Writing to it raises `UndecidedError`: what an async hook wants must not reach the loop at a
    step that depends on timing.
    """

    def __init__(self, flags: int) -> None:
        self.__dict__.update({name: bool(flags >> bit & 1) for bit, name in enumerate(FLAGS)})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise UndecidedError(
            f"an async hook cannot set control.{name}: by the time it runs, the loop has moved on, "
            "and when the flag arrived would depend on the network. That is what "
            "@asynccb.decides(lag=k) is for, which applies an async hook's decision at a fixed "
            "step; or write the hook as a plain `def`, which runs inline on the training thread"
        )

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)


_read_flags = operator.attrgetter(*FLAGS)
_PACKED: Final = {
    tuple(bool(bits >> place & 1) for place in range(len(FLAGS))): bits
    for bits in range(1 << len(FLAGS))
}


def pack_flags(control: TrainerControl) -> int:
    """Return the flags as bits, in the order of `FLAGS`."""
    flags = _read_flags(control)
    packed = _PACKED.get(flags)
    if packed is None:  # something that is true or false, but no bool
        packed = _PACKED[tuple(map(bool, flags))]
    return packed


def unpack_flags(flags: int) -> TrainerControl:
    """Return a control with the flags that were packed."""
    return TrainerControl(*(bool(flags >> bit & 1) for bit in range(len(FLAGS))))


@dataclass(frozen=True)
class Decision:
    """Say what a hook wants the flags to be; None is no opinion."""

    should_training_stop: bool | None = None
    should_epoch_stop: bool | None = None
    should_save: bool | None = None
    should_evaluate: bool | None = None
    should_log: bool | None = None

    @classmethod
    def between(cls, before: int, after: int) -> Decision:
        """Return what changes packed flags from `before` to `after`."""
        return cls(
            *(
                bool(after >> bit & 1) if (before ^ after) >> bit & 1 else None
                for bit in range(len(FLAGS))
            )
        )

    @property
    def opinions(self) -> dict[str, bool]:
        """The flags that it has an opinion on."""
        return {name: value for name, value in vars(self).items() if value is not None}


NO_OPINION: Final = Decision()


def combine(decisions: Iterable[Decision]) -> Decision:
    """Return the one decision that does what all do in their order: a later opinion wins."""
    opinions: dict[str, bool] = {}
    for decision in decisions:
        opinions |= decision.opinions
    return Decision(**opinions)


def merge(flags: int, decisions: Iterable[Decision]) -> int:
    """Return packed flags with the decisions applied in their order."""
    for name, value in combine(decisions).opinions.items():
        bit = 1 << FLAGS.index(name)
        flags = flags | bit if value else flags & ~bit
    return flags


def write_flags(control: TrainerControl, decisions: Iterable[Decision]) -> None:
    """Apply decisions, in their order, to a control."""
    flags = pack_flags(control)
    for name, value in Decision.between(flags, merge(flags, decisions)).opinions.items():
        setattr(control, name, value)
