"""
What callbacks steer a run with: the flags, as in transformers, their frozen form, and decisions.

Promises: what decisions make of the flags depends on their order alone.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

from asynccb._ground.exceptions import UndecidedError
from asynccb._state.trainer_state import ExportableState

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

    Which event clears which flag is in `asynccb._ground.events.RESETS`.
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
        raise _undecided(f"set control.{name}")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)


def _undecided(what: str) -> UndecidedError:
    return UndecidedError(
        f"an async hook cannot {what}: by the time it runs, the loop has moved on, and when the "
        "flag arrived would depend on the network. That is what @asynccb.decides(lag=k) is for, "
        "which applies an async hook's decision at a fixed step; or write the hook as a plain "
        "`def`, which runs inline on the training thread"
    )


class PrivateControl(TrainerControl):
    """
    Be the control of one hook that decides, and remember what it asks for.

    Its decision is what it changes; and each flag that it sets to True, even where that was up
    already at its event and will long be down when the decision is applied. A flag that it sets to
    False and that is down is no opinion, so that `control.should_save = step == 7` asks for a save
    at step 7, and at other steps leaves everybody else's alone.
    """

    def __init__(self, flags: int) -> None:
        values = {name: bool(flags >> bit & 1) for bit, name in enumerate(FLAGS)}
        self.__dict__.update(values, _asked=0)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if value and name in FLAGS:
            self.__dict__["_asked"] |= 1 << FLAGS.index(name)


_ALL: Final = (1 << len(FLAGS)) - 1
_read_flags = operator.attrgetter(*FLAGS)
_PACKED: Final = {
    tuple(bool(bits >> place & 1) for place in range(len(FLAGS))): bits
    for bits in range(1 << len(FLAGS))
}


def pack_flags(control: TrainerControl) -> int:
    """Return the flags as bits, in the order of `FLAGS`."""
    flags = _read_flags(control)
    try:
        return _PACKED[flags]
    except (KeyError, TypeError):  # something that is true or false, but no bool, be it an array
        return _PACKED[tuple(map(bool, flags))]


def is_control(returned: object) -> bool:
    """Tell whether what a hook returned has the flags of a control, ours or of transformers."""
    return all(hasattr(returned, flag) for flag in FLAGS)


def check_undecided(flags: int, returned: Any) -> None:
    """Raise `UndecidedError` where a hook that may not decide returns other flags than it got."""
    if is_control(returned) and pack_flags(returned) != flags & _ALL:
        raise _undecided("return a control with other flags")


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
        if not (before ^ after) & _ALL:
            return NO_OPINION
        return cls(
            *(
                bool(after >> bit & 1) if (before ^ after) >> bit & 1 else None
                for bit in range(len(FLAGS))
            )
        )

    @classmethod
    def of(cls, before: int, control: TrainerControl) -> Decision:
        """Return what a hook wants that got the packed flags, and left or returned the control."""
        after = pack_flags(control)
        asked = getattr(control, "_asked", 0) & after
        return cls.between(before & ~asked, after)

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


_OPINIONS: Final = (None, False, True)
"""A flag's opinions by weight: of two ranks' the heavier one holds."""


def to_weights(wishes: Decision) -> list[int]:
    """Return each flag's opinion as a number; the largest of all ranks' is what holds."""
    return [_OPINIONS.index(getattr(wishes, name)) for name in FLAGS]


def from_weights(weights: list[int]) -> Decision:
    """Return the decision that `to_weights` made into numbers."""
    return Decision(**{name: _OPINIONS[each] for name, each in zip(FLAGS, weights, strict=True)})
