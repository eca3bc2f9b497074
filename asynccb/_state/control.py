"""
The control flags by which callbacks steer a run, their frozen form, and decisions on them.

The flags are the same as in transformers.

Promises: the effect of several decisions on the flags depends on nothing but their order.
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
"""The five flags; a flag's index is its bit in a record. Only append: journals store the bits."""


@dataclass
class TrainerControl(ExportableState):
    """
    The flags that the loop obeys next; a `def` hook writes to them in place.

    `asynccb._ground.events.RESETS` lists the flags that each event clears.
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
        """Build a control from the result of `state()`."""
        return cls(**state["args"])


class FrozenControl(TrainerControl):
    """
    The control of an async hook: the flags as they were when the event was emitted.

    Writing to it raises `UndecidedError`, because the change would reach the loop at a step that
    depends on timing.
    """

    def __init__(self, flags: int) -> None:
        self.__dict__.update({name: bool(flags >> bit & 1) for bit, name in enumerate(FLAGS)})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _undecided(f"set control.{name}")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)


def _undecided(what: str) -> UndecidedError:
    return UndecidedError(
        f"an async hook cannot {what}: by the time it runs, the loop has moved on, and the step at "
        "which the flag arrives would depend on the network. Mark the hook with "
        "@asynccb.decides(lag=k), which applies its decision at a fixed step; or write the hook as "
        "a plain `def`, which runs inline on the training thread"
    )


class PrivateControl(TrainerControl):
    """
    The control of one deciding hook; it remembers which flags the hook sets to True.

    The hook's decision consists of the flags that it changes, and of every flag that it sets to
    True, even if the flag was True at the event already: the loop may have cleared the flag by the
    time the decision is applied. Setting a flag to False that is False already is no opinion.
    `control.should_save = step == 7` therefore asks for a save at step 7, and at other steps does
    not cancel the saves that other callbacks ask for.
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
    except (KeyError, TypeError):  # a flag that is not a bool, such as an array
        return _PACKED[tuple(map(bool, flags))]


def is_control(returned: object) -> bool:
    """Return whether a hook's result has the flags of a control, ours or one of transformers."""
    return all(hasattr(returned, flag) for flag in FLAGS)


def check_undecided(flags: int, returned: Any) -> None:
    """Raise `UndecidedError` if the returned control differs from the flags that the hook got."""
    if is_control(returned) and pack_flags(returned) != flags & _ALL:
        raise _undecided("return a control with other flags")


@dataclass(frozen=True)
class Decision:
    """The values that a hook wants the flags to have; None means no opinion."""

    should_training_stop: bool | None = None
    should_epoch_stop: bool | None = None
    should_save: bool | None = None
    should_evaluate: bool | None = None
    should_log: bool | None = None

    @classmethod
    def between(cls, before: int, after: int) -> Decision:
        """Return the decision that changes packed flags from `before` to `after`."""
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
        """
        Return the decision of a hook.

        `before` are the packed flags that the hook received, `control` is its control afterwards,
        or the one that it returned.
        """
        after = pack_flags(control)
        asked = getattr(control, "_asked", 0) & after
        return cls.between(before & ~asked, after)

    @property
    def opinions(self) -> dict[str, bool]:
        """The flags with an opinion, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


NO_OPINION: Final = Decision()


def combine(decisions: Iterable[Decision]) -> Decision:
    """Return one decision with the effect of all in their order: a later opinion wins."""
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
    """Apply decisions to a control, in their order."""
    flags = pack_flags(control)
    for name, value in Decision.between(flags, merge(flags, decisions)).opinions.items():
        setattr(control, name, value)


_OPINIONS: Final = (None, False, True)
"""A flag's opinions by weight: if two ranks differ, the heavier opinion holds."""


def to_weights(wishes: Decision) -> list[int]:
    """Return each flag's opinion as a number; the largest number among the ranks holds."""
    return [_OPINIONS.index(getattr(wishes, name)) for name in FLAGS]


def from_weights(weights: list[int]) -> Decision:
    """Return the decision that `to_weights` converted to these numbers."""
    return Decision(**{name: _OPINIONS[each] for name, each in zip(FLAGS, weights, strict=True)})
