"""The states of callbacks in a checkpoint come back, also with one of their two keys alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asynccb
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import train

ONE_KEY = {
    "args alone": {"args": {"name": "first"}},
    "attributes alone": {"attributes": {"count": 7}},
    "neither": {},
    "both": {"args": {"name": "first"}, "attributes": {"count": 7}},
    "None for one": {"args": None, "attributes": {"count": 7}},
}


class Exports:
    """What callbacks of either library export."""

    exported: dict[str, Any]

    def __init__(self, name: str = "unnamed") -> None:
        self.name = name
        self.count = 0

    def state(self) -> dict[str, Any]:
        return self.exported


THEIR_STATE: Any = transformers.trainer_callback.ExportableState
KINDS = {
    "ours": (Exports, asynccb.TrainerCallback, asynccb.ExportableState),
    "theirs": (Exports, transformers.TrainerCallback, THEIR_STATE),
}


def expected(exported: dict[str, Any]) -> tuple[str, int]:
    name = (exported.get("args") or {}).get("name", "unnamed")
    return name, (exported.get("attributes") or {}).get("count", 0)


@pytest.mark.parametrize("exported", ONE_KEY.values(), ids=ONE_KEY)
@pytest.mark.parametrize("bases", KINDS.values(), ids=KINDS)
def test_a_state_may_leave_out_either_key(
    tmp_path: Path, bases: tuple[type, ...], exported: dict[str, Any]
) -> None:
    kind: Any = type("Counter", bases, {"exported": exported})
    train(tmp_path, kind("saved"), max_steps=1)
    resumed = kind()
    train(
        tmp_path,
        resumed,
        max_steps=2,
        resume=tmp_path / "checkpoint-1",
        restore_callback_states_from_checkpoint=True,
    )
    assert (resumed.name, resumed.count) == expected(exported)


@pytest.mark.parametrize("key", ["args alone", "attributes alone", "neither", "both"])
def test_the_trainer_of_transformers_restores_the_same(tmp_path: Path, key: str) -> None:
    kind: Any = type("Counter", KINDS["theirs"], {"exported": ONE_KEY[key]})
    settings = {"save_steps": 1, "restore_callback_states_from_checkpoint": True}
    their_trainer(tmp_path, kind("saved"), max_steps=1, **settings).train()
    trainer = their_trainer(tmp_path, kind(), max_steps=2, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    found: Any = next(c for c in trainer.callback_handler.callbacks if isinstance(c, kind))
    assert (found.name, found.count) == expected(ONE_KEY[key])


@pytest.mark.parametrize("exported", [None, "seven", 7])
def test_a_state_that_is_no_dict_is_a_warning_at_the_resumption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, exported: Any
) -> None:
    kind: Any = type("Counter", KINDS["ours"], {"exported": exported})
    train(tmp_path, kind(), max_steps=1)
    resumed = kind("new")
    again = train(
        tmp_path,
        resumed,
        max_steps=2,
        resume=tmp_path / "checkpoint-1",
        restore_callback_states_from_checkpoint=True,
    )
    assert again.state.global_step == 2
    assert resumed.name == "new"
    assert f"the checkpoint's state of Counter is {exported!r}, not a dict" in caplog.text
