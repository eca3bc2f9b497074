"""
The base class of callbacks, and the division of its hooks into inline and async ones.

Promises: adding a callback that cannot work raises an error with the callback's name and a remedy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from asynccb._ground.events import EVENTS, Event, closest
from asynccb._ground.exceptions import DefinitionError
from asynccb._ground.types import OnError, Overflow, Placement, Ranks
from asynccb.callbacks.decides import Deciding, terms_of
from asynccb.callbacks.hook_kinds import (
    awaiting,
    is_asynchronous,
    is_generator,
    own,
    signature_of,
)
from asynccb.callbacks.options import Options, check_options
from asynccb.callbacks.request import Requesting

if TYPE_CHECKING:
    from asynccb._state.control import TrainerControl
    from asynccb._state.trainer_state import TrainerState
    from asynccb.arguments.training_arguments import TrainingArguments

HookResult: TypeAlias = "TrainerControl | Awaitable[TrainerControl | None] | None"
AsyncHook: TypeAlias = Callable[..., Awaitable[Any]]
InlineHook: TypeAlias = Callable[..., Any]

COMMON_KEYWORDS = (
    "model",
    "processing_class",
    "optimizer",
    "lr_scheduler",
    "train_dataloader",
    "eval_dataloader",
)
"""Keyword arguments of every hook."""

EXTRA_KEYWORDS: dict[Event, tuple[str, ...]] = {
    Event.LOG: ("logs",),
    Event.EVALUATE: ("metrics",),
    Event.PREDICT: ("metrics",),
}


class TrainerCallback:
    """
    The base class of callbacks: override the hooks that you need, as `def` or as `async def`.

    A `def` hook runs inline on the training thread with the live state and control, as in
    transformers. An error in it ends the training. An `async def` hook runs in the callback's own
    lane, in the order of emission, on snapshots. An error in it stays in the lane. The `def` hooks
    of an event run first, in order; its async hooks see the event as the `def` hooks left it.

    A decorated `async def` and an object with an `async def __call__` are async hooks, too. Most
    decorators, such as `@torch.no_grad()`, act while the coroutine is made, not while it runs:
    write `with torch.no_grad():` in the hook.

    The parameters of a hook are `(self, args, state, control, **kwargs)`. `kwargs` contains
    `model, processing_class, optimizer, lr_scheduler, train_dataloader, eval_dataloader`, `logs`
    at `on_log`, and `metrics` at `on_evaluate` and `on_predict`.

    The attributes below may be set on the class, or on an instance before it is added. Their names
    are asynccb's in every subclass, where a value that they do not take is refused. They count on
    no other object: a callback of transformers runs with the defaults, whatever attributes it has.
    All other names are yours, those of a tracker's attributes (`enabled`, `offers`, …) included.
    """

    placement: Placement = "thread"
    """Process of the async hooks. With `"thread"` they see live objects. With `"process"` they see
    plain data (model and optimizer are None or described), but cost the training thread nothing."""

    concurrency: int = 1
    """Number of events in progress at once; above 1 they may complete in any order."""

    overflow: Overflow | None = None
    """The policy for a full mailbox; None means the dispatcher's policy."""

    on_error: OnError = "warn"
    """The effect of an exception in an async hook: a log line once per cause, the end of this
    callback, or a `CallbackError` on the training thread, at the end of this or the next event."""

    timeout: float | None = None
    """Seconds after which an async hook is canceled and counted as failed; None sets no limit."""

    needs_history: bool = True
    """Whether hooks in the companion need `state.log_history`, which it then keeps in memory."""

    ranks: Ranks = "all"
    """The ranks on which the async hooks run."""

    agreed: bool = False
    """Whether the ranks agree, right after the event, on the flags that the `def` hooks set: a flag
    set on one rank is set on all. Every rank must then emit the event."""

    request: Requesting = Requesting()
    """Asks the run for flags, from any place where the callback runs: for a stop button of its
    server, say, or from a thread of its own. Hooks that decide do not need it."""

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when the trainer has been set up."""
        return _refuse_strangers(self, args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before the first epoch."""
        return _refuse_strangers(self, args)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after the last log of the training."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before the first step of an epoch, also of a resumed epoch."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after the last step of an epoch; flags set here take effect at once."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before the first micro-batch of an update step."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after gradient clipping, before the optimizer's step."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after the optimizer's step, while the gradients still exist."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after each micro-batch except the last of an update step."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after an update step; `global_step` already includes it."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after an evaluation; `metrics` contains its results."""

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after a prediction; `metrics` contains its results."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when a checkpoint is complete on disk."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when the loop logs; `logs` contains the logged values."""

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after each batch of an evaluation or prediction."""

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before a checkpoint is pushed."""


def read_options(callback: object) -> Options:
    """Return a callback's options; one that is not ours, as of transformers, has the defaults."""
    if not isinstance(callback, TrainerCallback):
        return Options()
    return Options._make(getattr(callback, name) for name in Options._fields)


class Hooks(NamedTuple):
    """A callback's overridden hooks, bound to it, by kind."""

    inline: dict[Event, InlineHook]
    asynchronous: dict[Event, AsyncHook]

    @property
    def terms(self) -> dict[Event, Deciding]:
        """The terms of the deciding hooks."""
        return {
            event: terms
            for event, hook in self.asynchronous.items()
            if (terms := terms_of(hook)) is not None
        }


def find_hooks(callback: Any) -> Hooks:
    """
    Check a callback and return the hooks that it overrides.

    Accepts our callbacks and callbacks of transformers. A hook may also be set on the instance.
    Raises `DefinitionError` for any other object, for a method `on_*` without an event of that
    name, and for a hook with the wrong parameters. Raises `ConfigurationError` for an option whose
    value is not accepted.
    """
    bases = [base for base in type(callback).__mro__ if _is_callback_base(base)]
    if not bases:
        raise DefinitionError(
            f"{callback!r} is not a callback: inherit from asynccb.TrainerCallback (a callback of "
            "transformers is accepted unchanged)"
        )
    check_options(type(callback).__name__, read_options(callback))
    ours = any(base is TrainerCallback for base in bases)
    if ours:
        _check_names(callback)
    inline: dict[Event, InlineHook] = {}
    asynchronous: dict[Event, AsyncHook] = {}
    for event in EVENTS:
        hook = getattr(callback, event, None)
        if hook is None or not _overridden(callback, event):
            continue
        _check_hook(callback, event, hook)
        if is_asynchronous(hook):
            asynchronous[event] = awaiting(hook)
        else:
            inline[event] = hook
    return Hooks(inline, asynchronous)


def _refuse_strangers(callback: TrainerCallback, args: object) -> HookResult:
    """Raise `DefinitionError` if a transformers Trainer calls a callback with async hooks."""
    theirs = type(args).__module__.startswith("transformers.")
    if not theirs or getattr(callback.request, "is_connected", True):
        return None
    if hooks := find_hooks(callback).asynchronous:
        raise DefinitionError(
            f"{type(callback).__name__} has async hooks ({', '.join(hooks)}), which transformers "
            "does not run: put the callback into callbacks=[asynccb.AsyncCallbacks([...])]"
        )
    return None


def _is_callback_base(base: type) -> bool:
    return base is TrainerCallback or (
        base.__name__ == "TrainerCallback" and base.__module__ == "transformers.trainer_callback"
    )


def _overridden(callback: Any, name: str) -> bool:
    """Return whether the instance or a class of the user's defines the hook."""
    if name in own(callback):
        return True
    return any(name in vars(c) and not _is_callback_base(c) for c in type(callback).__mro__)


def _check_names(callback: Any) -> None:
    for name in dir(type(callback)):
        if name.startswith("on_") and name not in EVENTS and name not in Options._fields:
            raise DefinitionError(
                f"{type(callback).__name__}.{name} would never be called: no event has this name"
                f"{closest(name)}. Names that begin with on_ are reserved for hooks"
            )


def _check_hook(callback: Any, event: Event, hook: Callable[..., Any]) -> None:
    name = f"{type(callback).__name__}.{event}"
    if is_generator(hook):
        raise DefinitionError(
            f"{name} is a generator, so that calling it would run nothing: write it without yield"
        )
    keywords = dict.fromkeys(COMMON_KEYWORDS + EXTRA_KEYWORDS.get(event, ()))
    try:
        signature_of(hook).bind(None, None, None, **keywords)
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"{name} cannot be called with a hook's arguments ({error}); define it with the "
            "parameters (self, args, state, control, **kwargs)"
        ) from None
