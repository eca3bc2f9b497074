"""The mark on hooks that may decide."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from asynccb import ConfigurationError, DefinitionError, TrainerCallback, decides
from asynccb.callbacks.base import find_hooks
from asynccb.callbacks.decides import Deciding, terms_of


class Base(TrainerCallback):
    @decides(lag=2, limit=5, on_late="skip")
    async def on_log(self, args, state, control, **kwargs):
        """Say something."""


class Heir(Base): ...


class Rebel(Base):
    async def on_log(self, args, state, control, **kwargs): ...


def test_the_function_stays_what_it_is() -> None:
    async def on_log(args, state, control, **kwargs): ...

    assert decides()(on_log) is on_log


@pytest.mark.parametrize("callback", [Base(), Heir()])
def test_a_hook_and_one_that_is_inherited_have_their_terms(callback: Any) -> None:
    assert find_hooks(callback).terms == {"on_log": Deciding(2, 5, "skip")}


def test_a_hook_that_is_overridden_without_the_mark_does_not_decide() -> None:
    assert find_hooks(Rebel()).terms == {}


def test_a_hook_that_is_set_on_an_instance_decides() -> None:
    @decides()
    async def on_save(args, state, control, **kwargs): ...

    callback = TrainerCallback()
    callback.on_save = on_save  # type: ignore[method-assign]
    assert find_hooks(callback).terms == {"on_save": Deciding(1, 60.0, "wait")}


def test_a_hook_without_the_mark_has_no_terms() -> None:
    assert terms_of(Rebel().on_log) is None


def test_a_def_hook_cannot_be_marked() -> None:
    def on_log(self, args, state, control, **kwargs): ...

    with pytest.raises(DefinitionError, match=r"on_log is not `async def`"):
        decides()(on_log)  # type: ignore[type-var]


@pytest.mark.parametrize("lag", [-1, 1.0, True, None, "1", print])
def test_a_lag_that_is_no_number_of_steps_is_refused(lag: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"lag is .*; it takes a number of steps"):
        decides(lag)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), True, None, "60"])
def test_a_limit_that_is_no_time_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"limit is .*; it takes seconds above 0"):
        decides(limit=limit)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_late is 'hope'; it takes one of 'wait'"):
        decides(on_late="hope")  # type: ignore[arg-type]


def test_a_partial_function_is_taken_as_what_it_wraps() -> None:
    async def on_log(extra, args, state, control, **kwargs): ...

    callback = TrainerCallback()
    callback.on_log = decides(0)(partial(on_log, 1))  # type: ignore[method-assign]
    assert find_hooks(callback).terms == {"on_log": Deciding(0, 60.0, "wait")}
