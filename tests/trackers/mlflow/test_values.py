"""Keys and values against the rules of the MLflow package itself."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.store.artifact.artifact_repo import verify_artifact_path
from mlflow.utils import validation

from asynccb.delivery.queue import json_size
from asynccb.trackers.mlflow.api import Point
from asynccb.trackers.mlflow.outbox import size_of
from asynccb.trackers.mlflow.values import (
    artifact_path,
    entity_key,
    metric_key,
    metric_value,
    text_value,
)
from tests.trackers.lane import START

NAMES = (
    st.text("x/.", min_size=240, max_size=400) | st.text() | st.text(alphabet="a./@ é", max_size=9)
)


@given(NAMES)
@example("..0")
def test_every_name_becomes_a_metric_key_that_mlflow_takes(name: str) -> None:
    key = metric_key(name)
    validation._validate_metric_name(key)
    assert len(key) <= validation.MAX_ENTITY_KEY_LENGTH


@given(st.lists(NAMES, unique=True))
@example(["recall>0.5", "recall<0.5", "loss@1", "loss%1", "loss_1", "Äpfel", "Öpfel"])
def test_names_that_differ_have_keys_that_differ(names: list[str]) -> None:
    assert len({metric_key(name) for name in names}) == len(names)


@given(st.text("aé精\U0001d49c/", max_size=250), st.floats(), st.integers(0, 2**63 - 1))
@example("精" * 250, -1.7976931348623157e308, 2**63 - 1)
def test_a_point_is_never_larger_than_it_is_taken_to_be(name: str, value: float, step: int) -> None:
    point = Point(metric_key(name), metric_value(value), START // 10**6, step)
    assert json_size(point) <= size_of(point)


@given(NAMES)
def test_every_name_becomes_a_parameter_key_that_mlflow_takes(name: str) -> None:
    key = entity_key(name)
    validation._validate_param_name(key)
    validation._validate_tag_name(key)
    assert len(key) <= validation.MAX_ENTITY_KEY_LENGTH


@given(NAMES)
def test_a_key_becomes_itself(name: str) -> None:
    assert metric_key(metric_key(name)) == metric_key(name)
    assert entity_key(entity_key(name)) == entity_key(name)


def test_long_names_with_the_same_beginning_stay_apart() -> None:
    assert metric_key("x" * 300 + "a") != metric_key("x" * 300 + "b")


@given(st.floats())
def test_a_number_survives_the_way_through_json(value: float) -> None:
    sent = metric_value(value)
    assert isinstance(sent, float) == math.isfinite(value)
    assert float(sent) == value or (math.isnan(value) and math.isnan(float(sent)))


@given(NAMES)
def test_an_artifact_path_stays_inside_its_directory(name: str) -> None:
    verify_artifact_path(artifact_path(f"checkpoint-1/{name}"))


def test_a_value_holds_no_nul() -> None:
    assert text_value("a\0b") == "a\N{REPLACEMENT CHARACTER}b"
