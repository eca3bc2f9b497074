"""
What a callback is, and which of its hooks run inline and which in a lane.

Promises: a callback that cannot work is refused when it is added, by name, with what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from asynccb._ground.events import EVENTS, Event, closest
from asynccb._ground.exceptions import ConfigurationError, DefinitionError
from asynccb._ground.types import OnError, Overflow, Placement, Ranks
from asynccb.callbacks.decides import Deciding, terms_of
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
"""Keywords that every hook is called with."""

EXTRA_KEYWORDS: dict[Event, tuple[str, ...]] = {
    Event.LOG: ("logs",),
    Event.EVALUATE: ("metrics",),
    Event.PREDICT: ("metrics",),
}

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "placement": ("thread", "process"),
    "overflow": ("block", "drop_oldest", "drop_newest", "raise", None),
    "on_error": ("warn", "disable", "raise"),
    "ranks": ("all", "local_zero", "world_zero"),
}


class TrainerCallback:
    """
    React to the events of a run: override the hooks you need, as `def` or as `async def`.

    A `def` hook runs inline on the training thread with the live state and control, as in
    transformers; an error in it ends the training. An `async def` hook runs in the callback's own
    lane, in the order of emission, on snapshots; an error in it stays there. Hooks take `(self,
    args, state, control, **kwargs)`, with `model, processing_class, optimizer, lr_scheduler,
    train_dataloader, eval_dataloader` in `kwargs`, `logs` at `on_log` and `metrics` at
    `on_evaluate` and `on_predict`. Where several `def` hooks listen to one event they run first,
    in order; the async hooks get the event as those left it.

    The attributes below may be set on the class or on an instance before it is added.
    """

    placement: Placement = "thread"
    """Where the async hooks run: `"thread"` sees live objects, `"process"` plain data (model and
    optimizer are None or described), but costs the training thread nothing."""

    concurrency: int = 1
    """How many events may be under way at once; above 1 their order of completion is open."""

    overflow: Overflow | None = None
    """What happens when the mailbox is full; None takes the dispatcher's policy."""

    on_error: OnError = "warn"
    """What an exception in an async hook does: log it once per cause, end this callback, or raise
    `CallbackError` on the training thread, at the end of the next event, or of this one."""

    timeout: float | None = None
    """Seconds after which an async hook is cancelled and counted as failed; None waits for ever."""

    needs_history: bool = True
    """Whether hooks in the companion want `state.log_history`, which it then keeps in memory."""

    ranks: Ranks = "all"
    """On which ranks the async hooks run."""

    agreed: bool = False
    """Whether what the `def` hooks set is agreed on among the ranks, right after the event: what
    one rank sets, all get. The event must then come on every rank."""

    request: Requesting = Requesting()
    """Asks the run for flags, from wherever the callback is at work: a stop button that its server
    has, a thread of its own. Hooks that decide have no need of it."""

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
        """Run before the first step of an epoch, a resumed one included."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after the last step of an epoch; flags set here are honoured at once."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before the first micro-batch of an update step."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when the gradients are clipped and the optimizer has not stepped yet."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when the optimizer has stepped and the gradients are still there."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after each micro-batch but the last one of an update step."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after an update step; `global_step` counts it already."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after an evaluation; `metrics` holds its results."""

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after a prediction; `metrics` holds its results."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when a checkpoint is complete on disk."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run when something is logged; `logs` holds it."""

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run after each batch of an evaluation or prediction."""

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> HookResult:
        """Run before a checkpoint is pushed."""


class Options(NamedTuple):
    """Hold how a callback's async hooks are run; the defaults are those of `TrainerCallback`."""

    placement: Placement = "thread"
    concurrency: int = 1
    overflow: Overflow | None = None
    on_error: OnError = "warn"
    timeout: float | None = None
    ranks: Ranks = "all"
    agreed: bool = False


def read_options(callback: Any) -> Options:
    """Return a callback's options; one of transformers has none and gets the defaults."""
    defaults = Options()._asdict()
    values: dict[str, Any] = {n: getattr(callback, n, default) for n, default in defaults.items()}
    return Options(**values)


class Hooks(NamedTuple):
    """Hold a callback's overridden hooks, bound, by kind."""

    inline: dict[Event, InlineHook]
    asynchronous: dict[Event, AsyncHook]

    @property
    def terms(self) -> dict[Event, Deciding]:
        """The terms of those that decide."""
        return {
            event: terms
            for event, hook in self.asynchronous.items()
            if (terms := terms_of(hook)) is not None
        }


def find_hooks(callback: Any) -> Hooks:
    """
    Check a callback and return the hooks that it overrides.

    Accepts our callbacks and those of transformers; a hook may also be set on the instance. Raises
    `DefinitionError` for anything else, for a method named `on_*` that is no event, and for a hook
    that cannot be called as hooks are; `ConfigurationError` for an attribute outside its values.
    """
    bases = [base for base in type(callback).__mro__ if _is_callback_base(base)]
    if not bases:
        raise DefinitionError(
            f"{callback!r} is no callback: inherit from asynccb.TrainerCallback (a callback of "
            "transformers is taken as it is)"
        )
    _check_options(callback)
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
        if inspect.iscoroutinefunction(hook):
            asynchronous[event] = hook
        else:
            inline[event] = hook
    return Hooks(inline, asynchronous)


def _refuse_strangers(callback: TrainerCallback, args: object) -> HookResult:
    """Raise where a trainer of transformers calls a callback that has hooks it cannot run."""
    theirs = type(args).__module__.startswith("transformers.")
    if not theirs or getattr(callback.request, "is_connected", True):
        return None
    if hooks := find_hooks(callback).asynchronous:
        raise DefinitionError(
            f"{type(callback).__name__} has async hooks ({', '.join(hooks)}), which transformers "
            "does not run: write callbacks=[asynccb.AsyncCallbacks([...])], with it in that list"
        )
    return None


def _is_callback_base(base: type) -> bool:
    return base is TrainerCallback or (
        base.__name__ == "TrainerCallback" and base.__module__ == "transformers.trainer_callback"
    )


def _overridden(callback: Any, name: str) -> bool:
    """Tell whether the hook is one of the user's, of a class or the instance, not an empty one."""
    if name in getattr(callback, "__dict__", ()):
        return True
    return any(name in vars(c) and not _is_callback_base(c) for c in type(callback).__mro__)


def _check_options(callback: Any) -> None:
    owner, options = type(callback).__name__, read_options(callback)
    for name, choices in _CHOICES.items():
        value = getattr(options, name)
        if value not in choices:
            raise ConfigurationError(
                f"{owner}.{name} is {value!r}; it takes one of {', '.join(map(repr, choices))}"
            )
    concurrency, timeout = options.concurrency, options.timeout
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(
            f"{owner}.concurrency is {concurrency!r}; it takes an integer above 0"
        )
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise ConfigurationError(
            f"{owner}.timeout is {timeout!r}; it takes seconds above 0, or None"
        )


def _check_names(callback: Any) -> None:
    for name in dir(type(callback)):
        if name.startswith("on_") and name not in EVENTS and name not in _CHOICES:
            raise DefinitionError(
                f"{type(callback).__name__}.{name} would never be called: there is no such event"
                f"{closest(name)}. Names that begin with on_ are kept for hooks"
            )


def _check_hook(callback: Any, event: Event, hook: Callable[..., Any]) -> None:
    name = f"{type(callback).__name__}.{event}"
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise DefinitionError(
            f"{name} is a generator, of which nothing would run: write it without yield"
        )
    keywords = dict.fromkeys(COMMON_KEYWORDS + EXTRA_KEYWORDS.get(event, ()))
    try:
        inspect.signature(hook).bind(None, None, None, **keywords)
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"{name} cannot be called as hooks are ({error}); write it as "
            "(self, args, state, control, **kwargs)"
        ) from None
