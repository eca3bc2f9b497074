"""An attribute of the user's is never taken for one of ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.trainer_callback import ExportableState as TheirExportableState

import asynccb
from asynccb.callbacks.base import read_options
from asynccb.callbacks.options import Options
from asynccb.checkpoint.callback_states import capture
from tests.support.callbacks_for_tests import FileTracker, read_lines

OPTIONS = {
    "placement": "cpu",
    "concurrency": "many",
    "overflow": True,
    "on_error": "log",
    "timeout": "30s",
    "ranks": [0, 1],
    "agreed": "yes",
    "needs_history": "no",
    "request": "GET /",
}
"""What counts on our own callbacks, with a value of the user's."""
OF_TRACKERS = {
    "enabled": False,
    "local": True,
    "offline": True,
    "training_side": "left",
    "uploads": ["a.txt"],
    "offers": 3,
    "interval": "1 h",
    "beat": 120,
    "address": "Main Street 1",
    "rejected": "yes",
    "time": "noon",
    "group": "A",
    "rewinds": True,
    "in_checkpoint": False,
}
"""What counts on trackers, or with a state in checkpoints."""

THEIRS = transformers.TrainerCallback
OURS = asynccb.TrainerCallback


class Hears:
    """Hooks of both kinds, for a callback of either base class."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        vars(self).setdefault("inline", []).append(dict(logs))

    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        vars(self).setdefault("awaited", []).append(state.global_step)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(callback: Any) -> None:
    with asynccb.CallbackDispatcher([callback]) as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        run.emit("on_train_end")


def is_heard(callback: Any) -> bool:
    return vars(callback).get("inline") == [{"loss": 1.0}] and vars(callback)["awaited"] == [1]


@pytest.mark.parametrize("on_class", [True, False], ids=["class", "instance"])
@pytest.mark.parametrize(("name", "value"), [*OPTIONS.items(), *OF_TRACKERS.items()])
def test_no_attribute_counts_on_a_callback_of_transformers(
    name: str, value: Any, on_class: bool
) -> None:
    callback: Any = type("User", (Hears, THEIRS), {name: value} if on_class else {})()
    if not on_class:
        setattr(callback, name, value)
    train(callback)
    assert is_heard(callback)
    assert getattr(callback, name) == value
    assert read_options(callback) == Options()


@pytest.mark.parametrize("on_class", [True, False], ids=["class", "instance"])
@pytest.mark.parametrize(("name", "value"), OF_TRACKERS.items())
def test_no_attribute_of_trackers_counts_on_a_callback_that_is_none(
    name: str, value: Any, on_class: bool
) -> None:
    callback: Any = type("User", (Hears, OURS), {name: value} if on_class else {})()
    if not on_class:
        setattr(callback, name, value)
    train(callback)
    assert is_heard(callback)
    assert getattr(callback, name) == value


@pytest.mark.parametrize("base", [THEIRS, OURS], ids=["theirs", "ours"])
def test_a_callback_that_looks_like_a_tracker_in_every_attribute_is_none(base: type) -> None:
    calls: list[str] = []

    def own(name: str) -> Any:
        return lambda *args, **kwargs: calls.append(name)

    methods = (
        *("describe", "flush", "heartbeat", "take_refusals", "finish", "close", "told", "offer"),
        *("files", "upload", "reject", "resume", "restore"),
    )
    members = {**OF_TRACKERS, **{name: own(name) for name in methods}}
    callback: Any = type("User", (Hears, base), members)()
    train(callback)
    assert is_heard(callback)
    assert calls == []


@pytest.mark.parametrize("base", [THEIRS, OURS], ids=["theirs", "ours"])
def test_a_getattr_that_answers_everything_answers_no_question_of_ours(base: type) -> None:
    asked: list[str] = []

    def answer(self: Any, name: str) -> Any:
        asked.append(name)
        return lambda *args, **kwargs: name

    callback: Any = type("User", (Hears, base), {"__getattr__": answer})()
    train(callback)
    assert is_heard(callback)
    assert capture([callback], {}).keys() == {"CallbackDispatcher"}
    # transformers has no such event in some releases, nor any attribute `request`
    assert {name for name in asked if not name.startswith("on_")} <= {"request"}


def test_slots_with_a_getattr_that_answers_everything_are_no_trouble() -> None:
    class Slotted(OURS):
        __slots__ = ("heard",)

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: name

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.heard = kwargs["logs"]

    callback = Slotted()
    train(callback)
    assert callback.heard == {"loss": 1.0}


@pytest.mark.parametrize(("name", "value"), [("agreed", True), ("agreed", "yes")])
def test_flags_of_a_callback_of_transformers_are_no_collective(name: str, value: Any) -> None:
    stops = type("Stops", (THEIRS,), {name: value, "on_step_end": _stop})
    with asynccb.CallbackDispatcher([stops()]) as run:
        route: Any = run._run.emitter.routes["on_step_end"]
        assert [agreed for _, _, agreed in route.inline] == [False]
        run.emit("on_train_begin")
        run.step()
        assert run.control.should_training_stop


def _stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
    control.should_training_stop = True
    return control


class TheirState(TheirExportableState):
    in_checkpoint = False

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"count": 3}}


class OurState(asynccb.ExportableState):
    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"count": 3}}


def test_in_checkpoint_counts_with_our_exportable_state_alone() -> None:
    theirs = type("TheirCounter", (Hears, TheirState, THEIRS), {})()
    ours = type("OurCounter", (Hears, OurState, OURS), {})()
    left_out = type("LeftOut", (Hears, OurState, OURS), {"in_checkpoint": False})()
    states = capture([theirs, ours, left_out], {})
    assert states.keys() == {"TheirCounter", "OurCounter", "CallbackDispatcher"}


def test_a_method_named_state_alone_exports_nothing() -> None:
    class User(OURS):
        placement = "process"

        def state(self, of: str) -> str:
            return of

        async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None: ...

    train(User())
    assert capture([User()], {}).keys() == {"CallbackDispatcher"}


def test_a_tracker_that_is_switched_off_is_not_served(tmp_path: Path) -> None:
    on, off = FileTracker(str(tmp_path / "on")), FileTracker(str(tmp_path / "off"))
    off.enabled = False
    for tracker in (on, off):
        train(tracker)
    assert read_lines(tmp_path / "on")
    assert not (tmp_path / "off").exists()


def test_a_value_that_ours_do_not_take_is_refused_with_the_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "asynccb")
    callback = type("User", (Hears, OURS), {"ranks": [0, 1]})()
    with pytest.raises(asynccb.ConfigurationError, match="give an attribute of your own another"):
        train(callback)
