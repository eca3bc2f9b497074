"""Decorated hooks and objects with `__call__` run as what they are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from asyncio import run as run_to_the_end
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import anyio
import anyio.lowlevel
import pytest
import torch
import transformers

import asynccb
from asynccb._ground.events import Event
from asynccb.callbacks.base import find_hooks

LOOP = "asynccb-loop"
"""Name of the thread on which async hooks run."""


def passes_on(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs)

    return wrapper


def twice(hook: Callable[..., Any]) -> Callable[..., Any]:
    return passes_on(passes_on(hook))


@contextlib.contextmanager
def region() -> Iterator[None]:
    yield


class Decorator:
    """A decorator that is a class, which must bind like a function."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        functools.update_wrapper(self, hook)
        self.hook = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hook(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return functools.partial(self, instance)


async def hook(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    await anyio.lowlevel.checkpoint()
    self.seen.append((state.global_step, threading.current_thread().name))


PASSING = {
    "plain": hook,
    "no_grad": torch.no_grad()(hook),
    "inference_mode": torch.inference_mode()(hook),
    "record_function": torch.profiler.record_function("hook")(hook),
    "wraps": passes_on(hook),
    "wraps twice": twice(hook),
    "a context decorator": region()(hook),
    "a class": Decorator(hook),
    "partialmethod": functools.partialmethod(hook),
    "partialmethod of wraps": functools.partialmethod(passes_on(hook)),
}


def callback_with(hook: Any, base: type = asynccb.TrainerCallback) -> Any:
    callback = type("User", (base,), {"on_step_end": hook})()
    callback.seen = []
    return callback


def stepped(callback: Any) -> asynccb.CallbackDispatcher:
    with asynccb.CallbackDispatcher([callback]) as run:
        run.emit("on_train_begin")
        run.step()
    return run


@pytest.mark.parametrize(
    "base", [asynccb.TrainerCallback, transformers.TrainerCallback], ids=["ours", "theirs"]
)
@pytest.mark.parametrize("kind", PASSING)
def test_a_decorated_async_hook_runs_in_its_lane(kind: str, base: type) -> None:
    callback = callback_with(PASSING[kind], base)
    assert list(find_hooks(callback).asynchronous) == [Event.STEP_END]
    assert not find_hooks(callback).inline
    stepped(callback)
    assert callback.seen == [(1, LOOP)]


class Calls:
    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    async def __call__(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append((state.global_step, threading.current_thread().name))


class CallsDecorated(Calls):
    __call__ = torch.no_grad()(Calls.__call__)


class AnswersEverything(Calls):
    def __getattr__(self, name: str) -> Any:
        return self


class CallsPlainly(Calls):
    def __call__(  # type: ignore[override]
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:
        self.seen.append((state.global_step, threading.current_thread().name))


@pytest.mark.parametrize("wrap", [lambda it: it, functools.partial], ids=["bare", "partial"])
@pytest.mark.parametrize("kind", [Calls, CallsDecorated, AnswersEverything])
def test_an_object_with_an_async_call_runs_in_its_lane(kind: type[Calls], wrap: Any) -> None:
    called = kind()
    stepped(callback_with(wrap(called)))
    assert called.seen == [(1, LOOP)]


def test_an_object_with_a_plain_call_runs_inline() -> None:
    called = CallsPlainly()
    stepped(callback_with(called))
    assert called.seen == [(1, threading.current_thread().name)]


def test_an_object_whose_call_has_the_wrong_parameters_is_refused() -> None:
    class Wrong:
        async def __call__(self, state: Any) -> None: ...

    with pytest.raises(asynccb.DefinitionError, match=r"User\.on_step_end cannot be called"):
        find_hooks(callback_with(Wrong()))


def test_an_object_whose_call_is_a_generator_is_refused() -> None:
    class Yields:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            yield

    with pytest.raises(asynccb.DefinitionError, match="is a generator"):
        find_hooks(callback_with(Yields()))


def test_mocks_run_as_what_they_are() -> None:
    plain, asynchronous = Mock(return_value=None), AsyncMock(return_value=None)
    callback = callback_with(asynchronous)
    callback.on_log = plain
    hooks = find_hooks(callback)
    assert list(hooks.asynchronous) == [Event.STEP_END]
    assert list(hooks.inline) == [Event.LOG]
    stepped(callback)
    assert asynchronous.await_count == 1


def blocks(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(hook(*args, **kwargs))

    return wrapper


def blocks_by_name(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return run_to_the_end(hook(*args, **kwargs))

    return wrapper


def blocks_with_a_loop(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(hook(*args, **kwargs))
        finally:
            loop.close()

    return wrapper


def _to_the_end(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def blocks_elsewhere(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return _to_the_end(hook(*args, **kwargs))

    return wrapper


class BlocksAsClass(Decorator):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return anyio.run(functools.partial(self.hook, *args, **kwargs))


@pytest.mark.parametrize("outside", [lambda it: it, torch.no_grad()], ids=["bare", "no_grad"])
@pytest.mark.parametrize(
    "block", [blocks, blocks_by_name, blocks_with_a_loop, blocks_elsewhere, BlocksAsClass]
)
def test_a_decorator_that_runs_the_coroutine_itself_makes_a_def_hook(
    block: Any, outside: Any
) -> None:
    @outside
    @block
    async def stops(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await hook(self, args, state, control)
        control.should_training_stop = True

    callback = callback_with(stops)
    assert list(find_hooks(callback).inline) == [Event.STEP_END]
    run = stepped(callback)
    assert callback.seen == [(1, threading.current_thread().name)]
    assert run.control.should_training_stop


def test_a_wrapper_may_leave_the_hook_out() -> None:
    def every_second(hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def wrapper(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            return hook(self, args, state, control) if state.global_step % 2 == 0 else None

        return wrapper

    callback = callback_with(every_second(hook))
    with asynccb.CallbackDispatcher([callback]) as run:
        run.emit("on_train_begin")
        for _ in range(4):
            run.step()
    assert [step for step, _ in callback.seen] == [2, 4]
    counts = run.statistics().callbacks["User"]
    assert (counts.delivered, counts.failed) == (4, 0)


async def stops(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    control.should_training_stop = state.global_step == 1


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
@pytest.mark.parametrize(
    "decorator", [torch.no_grad(), passes_on, twice], ids=["no_grad", "wraps", "twice"]
)
def test_a_decorated_hook_may_decide(decorator: Any, outside: bool) -> None:
    mark = asynccb.decides(lag=1)
    decided = mark(decorator(stops)) if outside else decorator(mark(_copy(stops)))
    with asynccb.CallbackDispatcher([callback_with(decided)]) as run:
        run.emit("on_train_begin")
        run.step()
        assert not run.control.should_training_stop
        run.step()
        assert run.control.should_training_stop


def test_an_object_with_an_async_call_may_decide() -> None:
    class Stops:
        async def __call__(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    with asynccb.CallbackDispatcher([callback_with(asynccb.decides(lag=0)(Stops()))]) as run:
        run.emit("on_train_begin")
        run.step()
        assert run.control.should_training_stop


def _copy(function: Any) -> Any:
    """Return a function of its own, which a mark does not share with the other tests."""
    return type(function)(function.__code__, function.__globals__)


def test_a_decorated_hook_of_transformers_own_trainer_is_refused_there_by_name() -> None:
    callback = callback_with(torch.no_grad()(hook))
    arguments = transformers.TrainingArguments(output_dir="out", report_to="none")
    with pytest.raises(asynccb.DefinitionError, match="has async hooks"):
        callback.on_train_begin(arguments, None, None)


def test_wrapt_decorators_run_in_the_lane() -> None:
    wrapt = pytest.importorskip("wrapt")

    @wrapt.decorator
    def passes(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    callback = callback_with(passes(hook))
    stepped(callback)
    assert callback.seen == [(1, LOOP)]
