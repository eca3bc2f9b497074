"""Where a Comet tracker's settings come from, and which are refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from asynccb import ConfigurationError
from asynccb._ground.exceptions import AccessError
from asynccb.trackers.comet_ml import CometCallback
from asynccb.trackers.comet_ml.access import DEFAULT_URL, find_key, host_in, server_root
from tests.support.surroundings import Variables, check_read, go_home

EXPERIMENT = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _nothing_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "COMET")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def with_host(host: str) -> str:
    encoded = base64.b64encode(f'{{"baseUrl": "{host}"}}'.encode()).decode()
    return f"ABC123*{encoded.rstrip('=')}"


def test_nothing_said_means_an_experiment_of_its_own_in_the_cloud() -> None:
    settings = CometCallback().settings
    assert (settings.mode, settings.online, settings.log_assets) == ("get_or_create", True, False)
    assert (settings.url, settings.workspace, settings.project_name) == (None, None, None)
    assert settings.offline_directory == os.path.abspath(".cometml-runs")


def test_variables_are_read_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    variables: Variables = {
        "COMET_PROJECT_NAME": ("proj", {"project_name": "proj"}),
        "COMET_WORKSPACE": ("alice", {"workspace": "alice"}),
        "COMET_EXPERIMENT_KEY": (EXPERIMENT, {"experiment_key": EXPERIMENT}),
        "COMET_EXPERIMENT_NAME": ("usual", {"usual_name": "usual"}),
        "COMET_MODE": ("GET", {"mode": "get"}),
        "COMET_START_ONLINE": ("False", {"online": False}),
        "COMET_LOG_ASSETS": ("TRUE", {"log_assets": True}),
        "COMET_OFFLINE_DIRECTORY": ("~/kept", {"offline_directory": str(Path.home() / "kept")}),
        "COMET_URL_OVERRIDE": ("http://127.0.0.1:5/clientlib/", {"url": "http://127.0.0.1:5"}),
    }
    check_read(monkeypatch, variables, lambda: CometCallback().settings)
    assert CometCallback(mode="create", online=True).settings.mode == "create"


@pytest.mark.parametrize("value", ["TRUE", "true", "1", "FALSE", "0", None])
def test_the_variable_says_whether_assets_are_logged_as_it_does_in_transformers(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    if value is not None:
        monkeypatch.setenv("COMET_LOG_ASSETS", value)
    theirs = (value or "FALSE").upper() in integrations.ENV_VARS_TRUE_VALUES
    assert bool(CometCallback().uploads) is theirs


@pytest.mark.parametrize("mode", ["get_or_create", "create", "get", None])
def test_the_variable_says_how_an_experiment_is_found(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_EXPERIMENT_KEY", EXPERIMENT)
    if mode is not None:
        monkeypatch.setenv("COMET_MODE", mode)
    assert CometCallback().settings.mode == (mode or "get_or_create")


def test_files_are_read_in_the_vendors_order() -> None:
    home, work = Path.home(), Path.cwd()
    (home / ".comet.config").write_text("[comet]\napi_key=of-home\nworkspace=of-home\n")
    assert find_key(os.environ) == "of-home"
    (work / ".comet.config").write_text("[comet]\napi_key = of-work\n")
    assert find_key(os.environ) == "of-work"
    (home / "other").mkdir()
    (home / "other" / ".comet.config").write_text("[comet]\napi_key=of-config\n")
    assert find_key({"COMET_CONFIG": str(home / "other")}) == "of-config"
    (work / ".env").write_text("# COMET_API_KEY=no\nexport COMET_API_KEY='of-env-file'\nBROKEN\n")
    assert find_key({"COMET_CONFIG": str(home / "other")}) == "of-env-file"
    assert find_key({"COMET_API_KEY": " of-variable "}) == "of-variable"
    assert CometCallback().settings.workspace == "of-home"


def test_a_file_that_is_none_is_said_without_quoting_it() -> None:
    Path(".comet.config").write_text("api_key=SECRET\n")
    with pytest.raises(AccessError) as caught:
        CometCallback()
    assert "[comet]" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_missing_key_is_said_with_what_to_do() -> None:
    with pytest.raises(AccessError, match="COMET_API_KEY"):
        find_key({})


def test_a_key_may_carry_its_server_and_is_sent_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    key = with_host("https://comet.example.com/")
    monkeypatch.setenv("COMET_API_KEY", key)
    assert CometCallback().settings.url == host_in(key) == "https://comet.example.com"
    assert find_key(os.environ) == key
    assert find_key({"COMET_API_KEY": "ABC*"}) == "ABC"
    assert CometCallback(url="http://127.0.0.1:1").settings.url == "http://127.0.0.1:1"
    assert host_in("ABC") is None
    assert "ABC123" not in repr(CometCallback().state())


def test_a_key_that_is_broken_costs_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_API_KEY", "ABC*broken")
    assert CometCallback().settings.url is None
    with pytest.raises(AccessError, match="base64") as caught:
        CometCallback().connect()
    assert "broken" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"mode": "append"}, "get_or_create, create, get"),
        ({"mode": "OFFLINE"}, "COMET_START_ONLINE=0"),
        ({"mode": "get"}, "COMET_EXPERIMENT_KEY"),
        ({"experiment_key": "short"}, "32 to 50"),
        ({"experiment_key": "0-" * 20}, "32 to 50"),
        ({"project_name": ""}, "project_name"),
        ({"tags": "one"}, "list of strings"),
        ({"tags": ["x" * 101]}, "100 characters"),
        ({"online": "no"}, "True or False"),
        ({"log_assets": 1}, "True or False"),
        ({"url": "comet.example.com"}, "http"),
        ({"url": "http://host/other/"}, "http"),
        ({"url": "http://user:hidden@host"}, "COMET_API_KEY"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        CometCallback(**given)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["COMET_MODE", "COMET_START_ONLINE", "COMET_LOG_ASSETS"])
def test_a_variable_that_says_nothing_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "perhaps")
    with pytest.raises(ConfigurationError, match=name):
        CometCallback()


def test_it_is_configured_by_a_key_or_offline() -> None:
    assert not CometCallback.is_configured({})
    assert CometCallback.is_configured({"COMET_API_KEY": "k"})
    assert CometCallback.is_configured({"COMET_START_ONLINE": "0"})
    assert not CometCallback.is_configured({"COMET_START_ONLINE": "1"})
    Path("~/.comet.config").expanduser().write_text("[comet]\napi_key=k\n")
    assert CometCallback.is_configured({})


def test_the_root_of_a_server_is_without_the_sdks_path() -> None:
    assert server_root("https://www.comet.com/clientlib/") == DEFAULT_URL
    assert server_root("http://[::1]:80/clientlib") == "http://[::1]:80"
