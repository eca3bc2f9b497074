"""The sixteen events of a training run, and the control flags that each one resets."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Final

from asynccb._ground.exceptions import UnknownEventError


class Event(StrEnum):
    """
    A moment of a training run; the value is the name of the hook.

    This is the loop, with every event in its place. `log`, `evaluate` and `save` run only if the
    control asks for them::

        INIT_END                                   # the trainer exists
        TRAIN_BEGIN
        for epoch in epochs:
            EPOCH_BEGIN
            for group in groups_of_micro_batches:
                STEP_BEGIN
                for batch in group:
                    loss.backward()
                    SUBSTEP_END                    # after all but the last batch of the group
                PRE_OPTIMIZER_STEP                 # gradients are clipped
                optimizer.step()
                OPTIMIZER_STEP                     # gradients are still there
                scheduler.step(); zero_grad(); global_step += 1
                STEP_END
                log, evaluate, save
            EPOCH_END
            log, evaluate, save
        log                                        # the run's own figures
        TRAIN_END

        log:       LOG
        evaluate:  PREDICTION_STEP per batch, LOG, EVALUATE
        save:      PUSH_BEGIN if pushing, SAVE     # the checkpoint is complete on disk
        predict:   PREDICTION_STEP per batch, PREDICT
    """

    INIT_END = "on_init_end"
    TRAIN_BEGIN = "on_train_begin"
    TRAIN_END = "on_train_end"
    EPOCH_BEGIN = "on_epoch_begin"
    EPOCH_END = "on_epoch_end"
    STEP_BEGIN = "on_step_begin"
    PRE_OPTIMIZER_STEP = "on_pre_optimizer_step"
    OPTIMIZER_STEP = "on_optimizer_step"
    SUBSTEP_END = "on_substep_end"
    STEP_END = "on_step_end"
    EVALUATE = "on_evaluate"
    PREDICT = "on_predict"
    SAVE = "on_save"
    LOG = "on_log"
    PREDICTION_STEP = "on_prediction_step"
    PUSH_BEGIN = "on_push_begin"


EVENTS: Final = tuple(Event)
"""All events; an event's index is its number in a record. Only append: journals store the
number."""

RESETS: Final[dict[Event, tuple[str, ...]]] = {
    Event.TRAIN_BEGIN: ("should_training_stop",),
    Event.EPOCH_BEGIN: ("should_epoch_stop",),
    Event.STEP_BEGIN: ("should_save", "should_evaluate", "should_log"),
    Event.EVALUATE: ("should_evaluate",),
    Event.SAVE: ("should_save",),
    Event.LOG: ("should_log",),
}
"""Control flags that an event clears before its hooks run."""

TERMINAL: Final = frozenset(
    {Event.TRAIN_BEGIN, Event.TRAIN_END, Event.SAVE, Event.EVALUATE, Event.PREDICT}
)
"""Events that no overflow policy drops: they begin, end or steer a run, or happen only once."""


def closest(name: str) -> str:
    """Return ` (did you mean 'x'?)` for a misspelled event, or "" if no event has a close name."""
    # Other libraries' names.
    ours = name.replace("_start", "_begin").replace("_batch_", "_step_")
    near = difflib.get_close_matches(ours, EVENTS, n=1, cutoff=0.6)
    return f" (did you mean {str(near[0])!r}?)" if near else ""


def parse_event(event: str) -> Event:
    """Return the event of that name; raise `UnknownEventError` with the closest name otherwise."""
    try:
        return Event(event)
    except ValueError:
        near = closest(str(event))
        message = f"there is no event {event!r}{near}; see asynccb.Event for all sixteen"
        raise UnknownEventError(message) from None
