"""An MLflow tracker's settings: where they come from, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.run_description import PROCESS
from asynccb.trackers.mlflow import MLflowCallback
from tests.trackers.lane import description
from tests.trackers.mlflow.runs import revived

pytestmark = pytest.mark.usefixtures("mlflow_environment")

SECRET = "s3cr3t-value"


def test_a_restored_tracker_keeps_its_settings_whatever_the_environment_is_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://first:5000/prefix/")
    monkeypatch.setenv("MLFLOW_TAGS", '{"a": 1}')
    state = MLflowCallback().state()
    for name, value in {
        "MLFLOW_TRACKING_URI": "http://second",
        "MLFLOW_RUN_ID": "abc",
        "MLFLOW_TAGS": "broken",
        "MLFLOW_EXPERIMENT_NAME": "other",
    }.items():
        monkeypatch.setenv(name, value)
    again = revived(state, description())
    assert again.state() == state
    assert again.settings.tracking_uri == "http://first:5000/prefix"
    assert (again.settings.run_id, again.settings.experiment_name) == (None, None)


@pytest.mark.parametrize(
    ("environ", "configured"),
    [
        ({}, False),
        ({"MLFLOW_TRACKING_URI": " "}, False),
        ({"MLFLOW_TRACKING_URI": "http://host"}, True),
        ({"MLFLOW_TRACKING_URI": "http://host", "DISABLE_MLFLOW_INTEGRATION": "true"}, False),
        ({"MLFLOW_TRACKING_URI": "http://host", "DISABLE_MLFLOW_INTEGRATION": "1"}, False),
        ({"MLFLOW_TRACKING_URI": "http://host", "DISABLE_MLFLOW_INTEGRATION": "0"}, True),
    ],
)
def test_it_is_configured_where_there_is_an_address_and_no_veto(
    environ: dict[str, str], configured: bool
) -> None:
    assert MLflowCallback.is_configured(environ) is configured


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("sqlite://", "sqlite:///file.db"),
        ("sqlite:///:memory:", "sqlite:///file.db"),
        ("sqlite:///my.db?timeout=3", "without ? or #"),
        (f"postgresql://ada:{SECRET}@db/x", "--backend-store-uri postgresql://USER:PASSWORD@db/x"),
        (f"mysql+pymysql://ada:{SECRET}@db/x", "mysql+pymysql://USER:PASSWORD@db/x"),
        ("file://host/data", "no folder of this machine"),
        ("./runs", "MLFLOW_ALLOW_FILE_STORE=true: set that, or give a database"),
        ("localhost:5000", "did you mean http://localhost:5000"),
        ("127.0.0.1:5000/prefix", "did you mean http://127.0.0.1:5000/prefix"),
        ("databricks", "MLFLOW_TRACKING_TOKEN"),
        ("databricks://profile", "MLFLOW_TRACKING_TOKEN"),
        ("azureml://region", "'azureml'"),
        ("http://", "no host"),
        ("http://host:port", "no address"),
        (f"http://ada:{SECRET}@host:port", "no address"),
        ("http://[::1", "no address"),
        ("http://host:5000/#/experiments/1", "http://host:5000 is enough"),
        (f"http://host?token={SECRET}", "http://host is enough"),
        (f"http://ada:{SECRET}@host", "MLFLOW_TRACKING_PASSWORD"),
        (f"http//ada:{SECRET}@host", "no address"),
        ("", "no address"),
        (5000, "5000"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_to_do(uri: Any, advice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MLflowCallback(tracking_uri=uri)
    assert advice in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        (None, "--backend-store-uri sqlite:///mlflow.db"),
        ("sqlite:///my runs.db", "--backend-store-uri 'sqlite:///my runs.db'"),
        ("file:///data/mlruns", "--backend-store-uri file:///data/mlruns"),
        ("./mlruns", "MLFLOW_ALLOW_FILE_STORE=true mlflow server"),
    ],
)
def test_without_mlflow_s_package_a_store_is_refused_with_its_extra_and_a_server_s_command(
    uri: str | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigurationError) as caught:
        MLflowCallback(tracking_uri=uri)
    assert advice in str(caught.value)
    assert "pip install 'asynccb[mlflow]'" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "stored"),
    [
        (None, "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a/b%20c.db", "sqlite:///{here}/a/b c.db"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("runs", "file://{here}/runs"),
        ("./a b", "file://{here}/a%20b"),
        (Path("runs"), "file://{here}/runs"),
        ("file:runs", "file://{here}/runs"),
        ("file:///data/a%20b/", "file:///data/a%20b"),
        ("file://localhost/data", "file:///data"),
    ],
)
def test_a_store_s_address_is_absolute_from_the_training_s_folder(
    uri: Any, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracker = MLflowCallback(tracking_uri=uri)
    assert tracker.settings.tracking_uri == stored.format(here=tmp_path)
    assert tracker.settings.folder == str(tmp_path)
    assert tracker.local


@pytest.mark.parametrize("runs", [False, True])
def test_an_unset_address_is_the_one_that_mlflow_itself_takes(
    runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    if runs:
        (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    asked = "import mlflow; print(mlflow.get_tracking_uri())"
    theirs = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert MLflowCallback().settings.tracking_uri == theirs


def test_a_store_that_is_of_the_other_kind_is_refused_with_the_address_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "x.db").touch()
    with pytest.raises(ConfigurationError, match=f"give sqlite:///{tmp_path}/x.db"):
        MLflowCallback(tracking_uri="x.db")
    with pytest.raises(ConfigurationError, match="is a folder: name a file in it"):
        MLflowCallback(tracking_uri=f"sqlite:///{tmp_path}")


def test_the_settings_of_an_earlier_version_s_journal_are_read() -> None:
    state = MLflowCallback(tracking_uri="http://host").state()
    del state["args"]["folder"]
    assert revived(state, description()).settings.folder == ""


@pytest.mark.parametrize(
    "variable",
    [
        {"MLFLOW_TAGS": "team=vision"},
        {"MLFLOW_TAGS": "[1]"},
        {"MLFLOW_TAGS": '{"a@b": "x"}'},
        {"MLFLOW_MAX_LOG_PARAMS": "many"},
        {"MLFLOW_MAX_LOG_PARAMS": "-1"},
        {"MLFLOW_NESTED_RUN": "maybe"},
        {"HF_MLFLOW_LOG_ARTIFACTS": "some"},
        {"MLFLOW_FLATTEN_PARAMS": "2"},
        {"MLFLOW_RUN_ID": "no such/id"},
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"},
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "0"},
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "nan"},
        {"MLFLOW_TRACKING_INSECURE_TLS": "perhaps"},
        {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/no/such/file"},
        {"MLFLOW_TRACKING_CLIENT_CERT_PATH": "/no/such/file"},
    ],
    ids=str,
)
def test_a_variable_that_cannot_work_is_refused_when_the_tracker_is_made(
    variable: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError):
        MLflowCallback(tracking_uri="http://host")


@pytest.mark.parametrize(
    "setting",
    [
        {"tags": "team"},
        {"tags": {1: "x"}},
        {"tags": {"a": "x" * 8001}},
        {"max_log_params": -1},
        {"max_log_params": True},
        {"max_log_params": 1.5},
        {"nested_run": "yes"},
        {"experiment_name": ""},
        {"experiment_name": 7},
        {"run_id": "../x"},
        {"log_artifacts": 1},
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MLflowCallback(tracking_uri="http://host", **setting)


def test_every_setting_can_come_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MLFLOW_TRACKING_URI": "HTTPS://host/prefix/",
        "MLFLOW_EXPERIMENT_NAME": "e",
        "MLFLOW_RUN_ID": "r1",
        "MLFLOW_TAGS": '{"a": true, "b": "x"}',
        "MLFLOW_NESTED_RUN": "yes",
        "MLFLOW_FLATTEN_PARAMS": "ON",
        "MLFLOW_MAX_LOG_PARAMS": "12",
        "HF_MLFLOW_LOG_ARTIFACTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert MLflowCallback().state()["args"] == {
        "tracking_uri": "https://host/prefix",
        "experiment_name": "e",
        "run_id": "r1",
        "tags": {"a": "True", "b": "x"},
        "nested_run": True,
        "flatten_params": True,
        "max_log_params": 12,
        "log_artifacts": True,
        "names": "grouped",
        "folder": "",
    }


SWITCHES = {
    "HF_MLFLOW_LOG_ARTIFACTS": "log_artifacts",
    "MLFLOW_NESTED_RUN": "nested_run",
    "MLFLOW_FLATTEN_PARAMS": "flatten_params",
}


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["True", "1", "False", "0", None])
def test_a_switch_means_what_it_does_in_transformers(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    if value is not None:
        monkeypatch.setenv(name, value)
    theirs = (value or "FALSE").upper() in integrations.ENV_VARS_TRUE_VALUES
    made = MLflowCallback(tracking_uri="http://host", run_id="parent")
    assert getattr(made.settings, SWITCHES[name]) is theirs


RUN = {
    "run_id": "a1",
    "experiment_id": "1",
    "artifact_uri": "mlflow-artifacts:/1/a1/artifacts",
    "lifecycle_stage": "active",
}
WHERE = {"run_info": RUN, "tracking_uri": "http://first:5000"}


@pytest.mark.parametrize(
    ("settings", "goes_on"),
    [
        ({}, True),
        ({"run_id": "a1"}, True),
        ({"run_id": "b2"}, False),
        ({"run_id": "b2", "nested_run": True}, True),
        ({"tracking_uri": "http://second:5000"}, False),
    ],
)
def test_a_resumed_training_goes_on_in_its_run_unless_the_settings_name_another(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], goes_on: bool
) -> None:
    tracker = MLflowCallback(**({"tracking_uri": "http://first:5000"} | settings))
    assert tracker.resume(WHERE) is goes_on
    assert tracker.attributes()["run_info"] == (RUN if goes_on else None)
    assert ("logged elsewhere (http://first:5000, run a1)" in caplog.text) is not goes_on


@pytest.mark.parametrize(("active", "goes_on"), [("a1", True), ("b2", False)])
async def test_a_resumed_training_goes_on_in_its_run_unless_another_is_active(
    caplog: pytest.LogCaptureFixture, active: str, goes_on: bool
) -> None:
    tracker = MLflowCallback(tracking_uri="http://first:5000")
    await tracker.told(PROCESS, {"active_run": active}, 0)
    assert tracker.resume(WHERE) is goes_on
    assert ("or the active run, have changed" in caplog.text) is not goes_on


async def test_a_run_that_has_begun_is_not_left_for_one_that_is_active_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = MLflowCallback(tracking_uri="http://first:5000")
    tracker.restore(WHERE)
    await tracker.told(PROCESS, {"active_run": "b2"}, 0)
    assert "the run b2 is active, but this callback has begun the run a1" in caplog.text
    assert tracker.attributes()["run_info"] == RUN
