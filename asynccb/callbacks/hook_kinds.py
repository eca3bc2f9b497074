"""
Whether a hook is asynchronous, also behind decorators and if it is an object with `__call__`.

Promises: nothing is called to find out, and no `__getattr__` is asked.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

_DRIVES: Final = frozenset(
    {"run_until_complete", "run_coroutine_threadsafe", "async_to_sync", "syncify"}
)
"""Names in the code of a wrapper that drives the coroutine itself."""
_LOOPS: Final = frozenset({"asyncio", "anyio", "trio", "uvloop", "curio", "Runner"})
"""Names beside which `run` is such a name, too, as in `asyncio.run`."""
_MARK: Final = getattr(asyncio.coroutines, "_is_coroutine", object())
"""The value of `_is_coroutine` on `unittest.mock.AsyncMock` and on what older decorators return."""


def is_asynchronous(hook: object) -> bool:
    """
    Return whether calling a hook makes a coroutine.

    A wrapper with `__wrapped__`, which `functools.wraps` sets, makes a coroutine if the wrapped
    function does. But if the wrapper's code drives the coroutine itself, as with `asyncio.run`, the
    wrapper is a plain function.
    """
    for layer in layers(hook):
        if inspect.iscoroutinefunction(layer) or own(layer).get("_is_coroutine") is _MARK:
            return True
        if isinstance(layer, types.FunctionType) and _drives(layer.__code__, layer.__globals__):
            return False
    return False


def is_generator(hook: object) -> bool:
    """Return whether calling a hook makes a generator, so that nothing of it would run."""
    bare = _bare(hook)
    return any(
        inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)
        for called in (bare, _call_of(bare))
    )


def signature_of(hook: Callable[..., Any]) -> inspect.Signature:
    """Return a hook's parameters; raises as `inspect.signature` does."""
    return inspect.signature(_signed(hook))


def _signed(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return what has a hook's parameters: `inspect.signature` would ask an object itself first."""
    if isinstance(hook, functools.partial):
        return functools.partial(_signed(hook.func), *hook.args, **hook.keywords)
    if (call := _call_of(hook)) is None or "__wrapped__" in own(hook):
        return hook
    return types.MethodType(call, hook)


def awaiting(hook: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """
    Return an asynchronous hook as a coroutine function.

    A wrapper may also return without a coroutine, as on ranks where it calls nothing.
    """
    if inspect.iscoroutinefunction(hook):
        return hook

    async def call(*args: Any, **kwargs: Any) -> Any:
        returned = hook(*args, **kwargs)
        return await returned if inspect.isawaitable(returned) else returned

    return functools.update_wrapper(call, hook, assigned=(), updated=())


def layers(hook: object) -> Iterator[object]:
    """Yield a hook and all that it is made of: from the outside in, down to a function."""
    seen: set[int] = set()
    layer = hook
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        if (inner := _bound(layer)) is None:
            yield from () if (call := _call_of(layer)) is None else layers(call)
            inner = own(layer).get("__wrapped__")
        layer = inner


def own(thing: object) -> dict[str, Any]:
    """Return an object's own attributes; a `__getattr__` is not asked."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def _bound(hook: object) -> object | None:
    """Return what a method or a partial calls; None for anything else."""
    if isinstance(hook, types.MethodType | staticmethod | classmethod):
        return hook.__func__
    if isinstance(hook, functools.partial | functools.partialmethod):
        return hook.func
    return _partial_method(hook) if isinstance(hook, types.FunctionType) else None


def _bare(hook: object) -> object:
    """Return the function or object behind methods and partials."""
    while (inner := _bound(hook)) is not None:
        hook = inner
    return hook


def _partial_method(function: types.FunctionType) -> functools.partialmethod[Any] | None:
    """Return what a function was made from, if it is the method that a `partialmethod` makes."""
    found = own(function).get("__partialmethod__", own(function).get("_partialmethod"))
    return found if isinstance(found, functools.partialmethod) else None


def _call_of(thing: object) -> types.FunctionType | None:
    """Return the `__call__` that the class of an object defines in Python."""
    call = getattr(type(thing), "__call__", None)  # noqa: B004 - the function itself is needed
    return call if isinstance(call, types.FunctionType) else None


def _drives(code: types.CodeType, names: dict[str, Any], depth: int = 2) -> bool:
    """Return whether a function, or one that it contains or names, drives a coroutine."""
    used = {*code.co_names, *code.co_freevars}
    if used & _DRIVES or ("run" in used and used & _LOOPS):
        return True
    for function in (names.get(name) for name in used):
        if not isinstance(function, types.FunctionType):
            continue
        if function.__name__ == "run" and function.__module__.partition(".")[0] in _LOOPS:
            return True
        if depth and function.__globals__ is names and _drives(function.__code__, names, depth - 1):
            return True
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return any(_drives(part, names, depth) for part in inner)
