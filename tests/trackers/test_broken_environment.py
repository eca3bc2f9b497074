"""Variables and files that are broken, and that a run may not even need."""

from __future__ import annotations

from pathlib import Path

import pytest

import asynccb
from asynccb import ConfigurationError
from asynccb.trackers.base import Tracker

NOBODYS = "~nobody-here/x"
NO_ADDRESS = "http://["
DEEP = "[" * 100_000


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DAGSHUB_CLIENT_HOST", NO_ADDRESS),
        ("COMET_CONFIG", NOBODYS),
        ("WANDB_DIR", NOBODYS),
        ("WANDB_CONFIG_DIR", NOBODYS),
        ("NETRC", NOBODYS),
        ("SWANLAB_ROOT", NOBODYS),
        ("CLEARML_CONFIG_FILE", NOBODYS),
    ],
)
def test_what_is_broken_keeps_no_tracker_from_being_found(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    found = asynccb.get_reporting_integration_callbacks("all")
    assert {asynccb.MLflowCallback, asynccb.TensorBoardCallback} <= set(found)


def test_a_netrc_that_is_no_utf8_is_as_none_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / ".netrc"
    file.write_bytes(b"# G\xe9rard\nmachine api.wandb.ai login user password SECRET\n")
    file.chmod(0o600)
    assert asynccb.WandbCallback not in asynccb.get_reporting_integration_callbacks("all")
    assert f"{file} is no text in UTF-8" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    ("tracker", "variable"),
    [
        (asynccb.CometCallback, "COMET_CONFIG"),
        (asynccb.WandbCallback, "WANDB_DIR"),
        (asynccb.WandbCallback, "WANDB_CONFIG_DIR"),
        (asynccb.ClearMLCallback, "CLEARML_CONFIG_FILE"),
        (asynccb.SwanLabCallback, "SWANLAB_ROOT"),
    ],
)
def test_a_file_below_the_home_of_nobody_is_as_one_that_is_not_there(
    tracker: type[Tracker], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, NOBODYS)
    assert tracker().enabled


@pytest.mark.parametrize(
    ("tracker", "variable", "value"),
    [
        (asynccb.TrackioCallback, "TRACKIO_DIR", NOBODYS),
        (asynccb.TrackioCallback, "HF_HOME", NOBODYS),
        (asynccb.TrackioCallback, "XDG_CACHE_HOME", NOBODYS),
        (asynccb.TrackioCallback, "HF_ENDPOINT", NO_ADDRESS),
        (asynccb.TrackioCallback, "TRACKIO_SERVER_URL", NO_ADDRESS),
        (asynccb.CometCallback, "COMET_OFFLINE_DIRECTORY", NOBODYS),
        (asynccb.DagsHubCallback, "DAGSHUB_CLIENT_HOST", NO_ADDRESS),
        (asynccb.DVCLiveCallback, "DVC_STUDIO_URL", NO_ADDRESS),
        (asynccb.DVCLiveCallback, "DVC_STUDIO_REPO_URL", NO_ADDRESS),
        (asynccb.AzureMLCallback, "MLFLOW_TRACKING_URI", "azureml://["),
        (asynccb.MLflowCallback, "MLFLOW_TAGS", DEEP),
    ],
)
def test_what_a_tracker_cannot_do_without_is_refused_by_the_variables_name(
    tracker: type[Tracker], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STUDIO_TOKEN", "isat_x")
    monkeypatch.setenv("DVC_STUDIO_REPO_URL", "git@host:a/b")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as caught:
        tracker()
    assert len(str(caught.value)) < 1000


def test_tags_in_deep_brackets_are_tags_and_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_TAGS", DEEP)
    with pytest.raises(ConfigurationError, match="a SwanLab tag is"):
        asynccb.SwanLabCallback()
