import enum
import json
import math
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.plain import clean, flatten, is_scalar
from asynccb._state.run_description import ModelDescription, PlainArguments, RunDescription
from asynccb.trackers.names import SINGLE_VALUES, grouped, run_config, scalars


class Strategy(enum.Enum):
    STEPS = "steps"


@dataclass
class Accelerator:
    split_batches: bool = False
    hub_token: str = "hf_secret"
    nested: dict[str, Any] = field(default_factory=lambda: {"wandb_api_key": "key"})


class Config:
    def to_dict(self) -> dict[str, Any]:
        return {"layers": 2, "db_password": "pw"}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("loss", "train/loss"),
        ("train_loss", "train/train_loss"),
        ("epoch", "train/epoch"),
        ("eval_loss", "eval/loss"),
        ("eval_a_loss", "eval/a_loss"),
        ("eval_", "eval/"),
        ("evaluation", "train/evaluation"),
        ("test_acc", "test/acc"),
        ("", "train/"),
    ],
)
def test_names_are_grouped_as_in_transformers(raw: str, shown: str) -> None:
    assert grouped(raw) == shown


@given(st.sets(st.text(alphabet="eval_/tsrni") | st.text()))
def test_names_that_differ_have_groups_or_names_that_differ(names: set[str]) -> None:
    assert len({grouped(name) for name in names}) == len(names)


def test_the_single_values_are_the_five_figures_of_a_whole_run() -> None:
    assert sorted(SINGLE_VALUES) == [
        "total_flos",
        "train_loss",
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
    ]


@pytest.mark.parametrize(
    "value", [1, 1.5, True, math.nan, np.float16(1), np.int64(3), np.bool_(True), np.array(2.0)]
)
def test_a_number_of_python_or_numpy_is_a_scalar(value: object) -> None:
    assert is_scalar(value)


@pytest.mark.parametrize("value", ["1", None, [1], {"a": 1}, 1j, np.array([1.0]), np.str_("1")])
def test_anything_else_is_no_scalar(value: object) -> None:
    assert not is_scalar(value)


def test_scalars_become_floats_and_the_names_of_the_rest_are_returned() -> None:
    kept, dropped = scalars({"a": 1, "b": "x", "c": np.float32(0.5), "d": None, "e": True})
    assert kept == {"a": 1.0, "c": 0.5, "e": 1.0}
    assert {type(value) for value in kept.values()} == {float}
    assert dropped == ["b", "d"]


def test_nan_and_infinity_are_kept_as_scalars() -> None:
    kept, dropped = scalars({"a": math.nan, "b": -math.inf})
    assert math.isnan(kept["a"])
    assert kept["b"] == -math.inf
    assert dropped == []


def test_an_integer_that_no_float_can_hold_is_dropped() -> None:
    assert scalars({"huge": 10**400, "large": 10**300}) == ({"large": 1e300}, ["huge"])


def test_flattening_joins_names_and_keeps_lists_and_empty_mappings() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [2]}, "e": {}, "f": 3}
    assert flatten(nested, "/") == {"a/b/c": 1, "a/d": [2], "e": {}, "f": 3}


def test_flattening_lets_the_later_of_two_equal_names_win() -> None:
    assert flatten({"a": {"b": 1}, "a.b": 2}, ".") == {"a.b": 2}


def run(args: dict[str, Any], model: ModelDescription | None) -> RunDescription:
    return RunDescription(key="0" * 32, started=0, args=PlainArguments(args), model=model)


def test_an_argument_wins_over_the_model_s_configuration() -> None:
    model = ModelDescription("GPT", {"layers": 2, "seed": 1}, 10, 10, peft_config={"r": 8})
    config = run_config(run({"seed": 42, "output_dir": "out"}, model))
    assert config == {"peft_config": {"r": 8}, "layers": 2, "seed": 42, "output_dir": "out"}


def test_a_name_that_is_taken_wins_over_the_peft_configuration() -> None:
    model = ModelDescription("GPT", {"peft_config": "mine"}, 10, 10, peft_config={"r": 8})
    assert run_config(run({}, model)) == {"peft_config": "mine"}


def test_a_run_without_a_model_has_its_arguments_as_configuration() -> None:
    assert run_config(run({"seed": 42, "hub_token": None}, None)) == {
        "seed": 42,
        "hub_token": "<HUB_TOKEN>",
    }


@pytest.mark.parametrize(
    "key",
    ["hub_token", "WANDB_API_KEY", "password", "db_password", "client_secret", "api-key", "token"],
)
@pytest.mark.parametrize("value", ["s3cret", None, ["s3cret"], {"inner": "s3cret"}])
def test_a_value_whose_key_names_a_credential_is_masked(key: str, value: object) -> None:
    assert clean({"deep": [{key: value}]}) == {"deep": [{key: f"<{key.upper()}>"}]}


@pytest.mark.parametrize("key", ["tokens", "pad_token_id", "num_tokens", "tokenizer", "secretary"])
def test_a_key_that_only_looks_like_a_credential_keeps_its_value(key: str) -> None:
    assert clean({key: 7}) == {key: 7}


@pytest.mark.parametrize(
    "url",
    ["https://me:s3cret@host/x", "see postgresql://me:s3cret@p@host:5432/db", "http://s3cret@h"],
)
def test_a_password_in_a_url_is_masked(url: str) -> None:
    assert "s3cret" not in clean({"url": url})["url"]
    assert "<USERINFO>@" in clean(url)


def test_an_address_with_an_at_sign_behind_the_host_is_left_alone() -> None:
    assert clean("https://host/@user?to=a@b") == "https://host/@user?to=a@b"


def test_objects_of_a_configuration_become_plain_data() -> None:
    value = {
        "strategy": Strategy.STEPS,
        Strategy.STEPS: 1,
        "path": PurePosixPath("a/b"),
        "set": {3, 1, 2},
        "tuple": (1, None),
        "numpy": np.float32(0.5),
        "flag": np.bool_(True),
        "type": np.dtype("float32"),
        "class": Config,
        "accelerator": Accelerator(),
        "config": Config(),
    }
    assert clean(value) == {
        "strategy": "steps",
        "steps": 1,
        "path": "a/b",
        "set": [1, 2, 3],
        "tuple": [1, None],
        "numpy": 0.5,
        "flag": True,
        "type": "float32",
        "class": f"{__name__}.Config",
        "accelerator": {
            "split_batches": False,
            "hub_token": "<HUB_TOKEN>",
            "nested": {"wandb_api_key": "<WANDB_API_KEY>"},
        },
        "config": {"layers": 2, "db_password": "<DB_PASSWORD>"},
    }


@pytest.mark.parametrize(
    ("function", "name"),
    [(object().__repr__, "object.__repr__"), ([].append, "list.append"), (len, "builtins.len")],
    ids=["method of a slot", "method in C", "function in C"],
)
def test_a_function_in_c_goes_by_its_name(function: object, name: str) -> None:
    assert clean(function) == name


def test_numbers_that_json_or_messagepack_cannot_hold_become_strings() -> None:
    assert clean([math.nan, math.inf, -math.inf, 2**64, -(2**63)]) == [
        "NaN",
        "Infinity",
        "-Infinity",
        "18446744073709551616",
        -(2**63),
    ]


def test_a_configuration_that_contains_itself_is_cut_there() -> None:
    config: dict[str, Any] = {"a": [1]}
    config["a"].append(config)
    shared = [0]
    assert clean(config) == {"a": [1, "<CYCLE>"]}
    assert clean([shared, shared]) == [[0], [0]]


def test_a_file_name_that_is_no_unicode_can_be_written() -> None:
    assert clean("a\udcff").encode() == b"a\\udcff"


@given(plain)
def test_whatever_is_cleaned_can_be_written_as_strict_json_and_messagepack(value: Any) -> None:
    cleaned = clean(value)
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(cleaned)) == cleaned


@given(plain)
def test_cleaning_twice_changes_nothing(value: Any) -> None:
    assert clean(clean(value)) == clean(value)
