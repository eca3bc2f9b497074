"""Addresses that hold credentials, and what is kept and shown of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import asynccb
from asynccb import ConfigurationError
from asynccb.trackers.base import Tracker
from asynccb.trackers.shared.addresses import shown

SECRET = "hunter2"

TRACKERS: dict[str, tuple[type[Tracker], dict[str, str]]] = {
    "MLFLOW_TRACKING_URI": (asynccb.MLflowCallback, {}),
    "TRACKIO_SERVER_URL": (asynccb.TrackioCallback, {}),
    "HF_ENDPOINT": (asynccb.TrackioCallback, {}),
    "WANDB_BASE_URL": (asynccb.WandbCallback, {}),
    "COMET_URL_OVERRIDE": (asynccb.CometCallback, {}),
    "CLEARML_API_HOST": (asynccb.ClearMLCallback, {}),
    "SWANLAB_API_HOST": (asynccb.SwanLabCallback, {}),
    "DAGSHUB_CLIENT_HOST": (
        asynccb.DagsHubCallback,
        {"MLFLOW_TRACKING_URI": "https://dagshub.com/a/b.mlflow"},
    ),
    "DVC_STUDIO_URL": (
        asynccb.DVCLiveCallback,
        {"DVC_STUDIO_TOKEN": "isat_x", "DVC_STUDIO_REPO_URL": "git@host:a/b"},
    ),
    "DVC_STUDIO_REPO_URL": (asynccb.DVCLiveCallback, {"DVC_STUDIO_TOKEN": "isat_x"}),
}
"""By the variable for an address: the tracker, and what else it needs."""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def made(variable: str, address: str, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    tracker, others = TRACKERS[variable]
    for name, value in {**others, variable: address}.items():
        monkeypatch.setenv(name, value)
    return tracker()


@pytest.mark.parametrize(
    ("address", "left"),
    [
        ("http://host:80/a", "http://host:80/a"),
        (f"http://ada:{SECRET}@host/a?token={SECRET}#{SECRET}", "http://host/a"),
        (f"postgresql://db/x?user=ada&password={SECRET}", "postgresql://db/x"),
        ("sqlite:///my runs.db", "sqlite:///my runs.db"),
        (f"jdbc:sqlserver://db;password={SECRET}", "jdbc:sqlserver://db"),
        (f"https//ada:{SECRET}@host", ""),
        (f"ada:{SECRET}@host", ""),
        (f"http://ada:{SECRET}@host:port", ""),
        (f"http://ada:1/{SECRET}@host", ""),
        (f"http://ada:1?{SECRET}@host", ""),
        (f"http://[ada:{SECRET}@host", ""),
    ],
)
def test_an_address_is_shown_without_credentials_and_not_at_all_where_they_may_be_anywhere(
    address: str, left: str
) -> None:
    assert shown(address) == left


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://db/mlflow?user=ada&password={SECRET}",
        f"https//ada:{SECRET}@host",
        f"ada:{SECRET}@host",
        f"http://?password={SECRET}",
        f"http://ada:{SECRET}@host:port",
    ],
)
@pytest.mark.parametrize("variable", [name for name in TRACKERS if name != "DVC_STUDIO_REPO_URL"])
def test_neither_a_refusal_nor_what_is_kept_holds_a_password(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        seen = json.dumps(made(variable, address, monkeypatch).state())
    except ConfigurationError as error:
        seen = str(error)
    assert SECRET not in seen


@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "WANDB_APP_URL", "TRACKIO_SERVER_URL"])
def test_a_user_in_an_address_is_left_out_of_what_is_kept(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"https://ada:{SECRET}@host/prefix/")
    wandb = variable == "WANDB_APP_URL"
    tracker: Tracker = asynccb.WandbCallback() if wandb else asynccb.TrackioCallback()
    seen = json.dumps(tracker.state())
    assert "https://host/prefix" in seen
    assert SECRET not in seen


def test_an_address_of_dvc_studio_is_kept_without_its_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"https://host/a/b?token={SECRET}"
    seen = json.dumps(made("DVC_STUDIO_REPO_URL", address, monkeypatch).state())
    assert "https://host/a/b" in seen
    assert SECRET not in seen
