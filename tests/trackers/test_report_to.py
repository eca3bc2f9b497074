"""What `report_to` stands for: every name, alias and list, and the errors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import asynccb
from asynccb import MLflowCallback, TensorBoardCallback, get_reporting_integration_callbacks
from asynccb.trackers.report_to import _ALIASES, _TRACKERS

THERE = [
    name
    for name, home in _TRACKERS.items()
    if find_spec(f"asynccb.trackers.{home.partition(':')[0]}")
]


@pytest.mark.parametrize("name", THERE)
def test_a_name_stands_for_the_tracker_that_has_it(name: str) -> None:
    (tracker,) = get_reporting_integration_callbacks(name)
    assert tracker.name == name
    assert tracker.__name__ == _TRACKERS[name].partition(":")[2]


def test_the_names_are_those_of_transformers_but_for_what_nobody_delivers_to() -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    theirs = set(integrations.INTEGRATION_TO_CALLBACK)
    assert set(_TRACKERS) == theirs - {"neptune", "kubeflow"}
    for name, home in _TRACKERS.items():
        assert home.endswith(f":{integrations.INTEGRATION_TO_CALLBACK[name].__name__}")


@pytest.mark.parametrize(("alias", "name"), _ALIASES.items())
def test_an_alias_stands_for_what_its_name_does(alias: str, name: str) -> None:
    if name in THERE:
        assert get_reporting_integration_callbacks(alias) == get_reporting_integration_callbacks(
            name
        )
    else:
        with pytest.raises(asynccb.ConfigurationError, match=f"names '{alias}'"):
            get_reporting_integration_callbacks(alias)


@pytest.mark.parametrize("nothing", [None, "none", [], ["none"], ()])
def test_nothing_is_none_and_an_empty_list(nothing: object) -> None:
    assert get_reporting_integration_callbacks(nothing) == []  # type: ignore[arg-type]


def test_a_list_keeps_its_order_and_names_nothing_twice() -> None:
    found = get_reporting_integration_callbacks(["tensorboard", "mlflow", "tensorboard"])
    assert found == [TensorBoardCallback, MLflowCallback]
    assert get_reporting_integration_callbacks(("tensorboard", "tensorboardx")) == [
        TensorBoardCallback
    ]


def test_all_are_those_that_are_configured_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MLflowCallback not in get_reporting_integration_callbacks("all", {})
    configured = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    found = get_reporting_integration_callbacks(["all"], configured)
    assert {MLflowCallback, TensorBoardCallback} <= set(found)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert MLflowCallback in get_reporting_integration_callbacks("all")


@pytest.mark.parametrize(
    "wrong", ["wandbb", "neptune", "kubeflow", ["mlflow", "wandbb"], ["all", "wandbb"], [None]]
)
def test_an_unknown_name_is_an_error_that_lists_what_is_known(wrong: object) -> None:
    with pytest.raises(asynccb.ConfigurationError) as caught:
        get_reporting_integration_callbacks(wrong)  # type: ignore[arg-type]
    assert "'all', 'none'" in str(caught.value)
    for name in THERE:
        assert name in str(caught.value)


def test_the_trainer_adds_what_report_to_names_before_the_callbacks(tmp_path: Path) -> None:
    from tests.support.regression import Model

    args = asynccb.TrainingArguments(str(tmp_path), report_to=["tensorboard"], use_cpu=True)
    with asynccb.Trainer(Model(), args, callbacks=[asynccb.PrinterCallback]) as trainer:
        names = trainer.dispatcher.callback_list.splitlines()
    assert names.index("TensorBoardCallback") < names.index("PrinterCallback")
