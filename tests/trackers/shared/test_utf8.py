"""Variables that are no UTF-8: names are spelled out, paths are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import asynccb
from asynccb import ConfigurationError
from asynccb.trackers.base import Tracker

ODD = os.fsdecode(b"Ergebnisse-\xfc")
SPELLED = "Ergebnisse-\\udcfc"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("tracker", "variable"),
    [
        (asynccb.WandbCallback, "WANDB_NAME"),
        (asynccb.WandbCallback, "WANDB_TAGS"),
        (asynccb.MLflowCallback, "MLFLOW_EXPERIMENT_NAME"),
        (asynccb.TrackioCallback, "TRACKIO_PROJECT"),
        (asynccb.CometCallback, "COMET_PROJECT_NAME"),
        (asynccb.SwanLabCallback, "SWANLAB_EXP_NAME"),
        (asynccb.ClearMLCallback, "CLEARML_TASK"),
        (asynccb.DVCLiveCallback, "DVC_EXP_NAME"),
    ],
)
def test_a_name_has_what_is_no_utf8_spelled_out(
    tracker: type[Tracker], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, ODD)
    written = json.dumps(tracker().state(), ensure_ascii=False).encode()
    assert json.dumps(SPELLED).strip('"').encode() in written


@pytest.mark.parametrize(
    ("tracker", "variable"),
    [
        (asynccb.TensorBoardCallback, "TENSORBOARD_LOGGING_DIR"),
        (asynccb.TrackioCallback, "TRACKIO_DIR"),
        (asynccb.TrackioCallback, "HF_HOME"),
        (asynccb.CometCallback, "COMET_OFFLINE_DIRECTORY"),
        (asynccb.SwanLabCallback, "SWANLAB_LOG_DIR"),
        (asynccb.ClearMLCallback, "CLEARML_CONFIG_FILE"),
    ],
)
@pytest.mark.parametrize("home", ["", "~/"])
def test_a_path_that_is_no_utf8_is_refused_and_its_variable_named(
    tracker: type[Tracker], variable: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, home + ODD)
    with pytest.raises(ConfigurationError, match=f"{variable} gives the path") as caught:
        tracker()
    str(caught.value).encode()


def test_a_working_directory_that_is_no_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ODD).mkdir()
    monkeypatch.chdir(tmp_path / ODD)
    with pytest.raises(ConfigurationError, match="the working directory gives the path"):
        asynccb.TensorBoardCallback()
