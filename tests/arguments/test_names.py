"""Names that `TrainingArguments` does not have: each is an error that names the right one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments import TrainingArguments
from asynccb.arguments.names import ABSENT, RENAMED

FIELDS = {f.name for f in dataclasses.fields(TrainingArguments)}


def refused(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        TrainingArguments(**values)
    return str(raised.value)


@pytest.mark.parametrize("name", sorted(RENAMED))
def test_an_old_name_is_refused_with_the_name_of_today(name: str) -> None:
    assert f"no {name!r}: it is called {RENAMED[name]!r}" in refused(**{name: 1})
    assert RENAMED[name] in FIELDS


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_an_argument_without_a_counterpart_is_refused_with_what_to_use(name: str) -> None:
    assert refused(**{name: 1}) == f"asynccb.Trainer has no {name!r}: {ABSENT[name]}"
    assert name not in FIELDS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learning_rat", "learning_rate"),
        ("loging_steps", "logging_steps"),
        ("evaluation_stratgy", "eval_strategy"),
        ("deepsped", "deepspeed"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_closest(name: str, meant: str) -> None:
    message = refused(**{name: 1})
    assert f"no {name!r}" in message
    assert meant in message


def test_a_name_like_no_other_is_refused_with_all_names() -> None:
    message = refused(zzz=1)
    assert "no 'zzz'" in message
    assert all(name in message for name in FIELDS)


def test_the_fields_of_a_subclass_are_known() -> None:
    @dataclasses.dataclass
    class Mine(TrainingArguments):
        beam_width: int = 1

    assert Mine("out", beam_width=3).beam_width == 3
    with pytest.raises(ConfigurationError, match="do you mean 'beam_width'"):
        Mine("out", beam_with=3)  # type: ignore[call-arg]


def test_a_subclass_with_names_of_its_own_takes_them() -> None:
    class Mine(TrainingArguments):
        def __init__(self, epochs: int, **more: Any) -> None:
            super().__init__(num_train_epochs=epochs, **more)

    assert Mine(epochs=2, seed=7).num_train_epochs == 2


def test_arguments_can_be_copied_and_pickled() -> None:
    args = TrainingArguments("out", seed=7)
    for other in (copy.deepcopy(args), pickle.loads(pickle.dumps(args)), dataclasses.replace(args)):
        assert other.to_dict() == args.to_dict()
