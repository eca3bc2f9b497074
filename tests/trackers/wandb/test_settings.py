"""Where the W&B tracker's settings and its key come from, and which are refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from asynccb.trackers.wandb import WandbCallback
from asynccb.trackers.wandb.access import api_key, app_url
from tests.support.surroundings import Variables, check_read, go_home
from tests.trackers.lane import description
from tests.trackers.wandb.server import KEY, WandbServer

CLOUD = "https://api.wandb.ai"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "WANDB", "NETRC")


def settings(**given: Any) -> Any:
    return WandbCallback(**given).settings


def test_without_anything_it_is_the_vendors_cloud_and_the_project_of_transformers() -> None:
    made = settings()
    assert (made.base_url, made.app_url, made.project) == (
        CLOUD,
        "https://wandb.ai",
        "huggingface",
    )
    assert (made.mode, made.log_model, made.watch, made.console) == (
        "online",
        "false",
        "false",
        False,
    )
    assert made.system_metrics == 15.0


def test_every_variable_is_read_and_an_argument_goes_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables: Variables = {
        "WANDB_PROJECT": ("p", {"project": "p"}),
        "WANDB_ENTITY": ("e", {"entity": "e"}),
        "WANDB_NAME": ("n", {"name": None, "usual_name": "n"}),
        "WANDB_RUN_ID": ("r", {"run_id": "r"}),
        "WANDB_RESUME": ("allow", {"resume": "allow"}),
        "WANDB_MODE": ("offline", {"mode": "offline"}),
        "WANDB_TAGS": ("a, b,,a", {"tags": ["a", "b"]}),
        "WANDB_NOTES": ("o", {"notes": "o"}),
        "WANDB_RUN_GROUP": ("g", {"group": "g"}),
        "WANDB_JOB_TYPE": ("j", {"job_type": "j"}),
        "WANDB_BASE_URL": ("http://h:1/", {"base_url": "http://h:1", "app_url": "http://h:1"}),
        "WANDB_LOG_MODEL": ("end", {"log_model": "end"}),
        "WANDB_WATCH": ("all", {"watch": "all"}),
        "WANDB_CONSOLE": ("wrap", {"console": True}),
        "WANDB_X_STATS_SAMPLING_INTERVAL": ("30", {"system_metrics": 30.0}),
    }
    check_read(monkeypatch, variables, settings)
    given = settings(
        project="q", name="m", tags=("c",), log_model="checkpoint", watch=False, console=False,
        system_metrics=False, mode="online", resume="must",
    )  # fmt: skip
    assert (given.project, given.name, given.tags) == ("q", "m", ["c"])
    assert (given.log_model, given.watch, given.console) == ("checkpoint", "false", False)
    assert (given.system_metrics, given.mode, given.resume) == (0.0, "online", "must")


def test_settings_files_fill_in_what_the_environment_leaves_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".config" / "wandb").mkdir(parents=True)
    (tmp_path / ".config" / "wandb" / "settings").write_text(
        "[default]\nbase_url = https://user.example\nentity = me\nproject = mine\n"
    )
    (tmp_path / "work" / "wandb").mkdir(parents=True)
    (tmp_path / "work" / "wandb" / "settings").write_text("[default]\nproject = ours\n")
    made = settings(directory=str(tmp_path / "work"))
    assert (made.base_url, made.entity, made.project) == ("https://user.example", "me", "ours")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("WANDB_ENTITY", "variable")
    made = settings()
    assert (made.entity, made.project) == ("variable", "ours")


def test_a_broken_settings_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("api_key = secret-thing\n")
    with pytest.raises(AccessError, match="wandb/settings is no settings file") as caught:
        settings()
    assert "secret" not in str(caught.value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an address without a scheme": ({"base_url": "wandb.example"}, "http"),
    "an address with a password": ({"base_url": "http://u:p@h"}, "WANDB_API_KEY"),
    "no host": ({"base_url": "http://"}, "is none"),
    "a port that is none": ({"base_url": "http://h:x"}, "is none"),
    "a project with a slash": ({"project": "a/b"}, "project"),
    "an id with a slash": ({"run_id": "a/b"}, "run_id"),
    "an empty id": ({"run_id": ""}, "run_id"),
    "resume auto": ({"resume": "auto"}, "allow, must, never"),
    "must without an id": ({"resume": "must"}, "WANDB_RUN_ID"),
    "another mode": ({"mode": "shared"}, "online, offline or disabled"),
    "tags as one text": ({"tags": "a,b"}, "tags"),
    "a tag that is too long": ({"tags": ["x" * 65]}, "64"),
    "log_model": ({"log_model": "true"}, "end, checkpoint, false"),
    "watch": ({"watch": "everything"}, "gradients, parameters, all, false"),
    "console": ({"console": "wrap"}, "True or False"),
    "samples too often": ({"system_metrics": 0.1}, "at least 1"),
    "a number for a name": ({"name": 3}, "name is 3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_where_it_is_given(what: str) -> None:
    given, message = REFUSED[what]
    with pytest.raises(ConfigurationError, match=message) as caught:
        settings(**given)
    assert "p@h" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "false", "end", "checkpoint", "END", "true", "1"])
def test_the_variable_enables_models_where_it_does_in_transformers(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    if value is not None:
        monkeypatch.setenv("WANDB_LOG_MODEL", value)
    theirs = integrations.WandbLogModel("false" if value is None else value)
    ours = WandbCallback()
    assert ours.settings.log_model == theirs.value
    assert bool(ours.uploads) is theirs.is_enabled
    assert (Event.SAVE in ours.uploads) is (theirs == integrations.WandbLogModel.CHECKPOINT)


@pytest.mark.parametrize("value", ["true", "END", "1"])
def test_an_odd_word_in_the_variables_of_transformers_is_said_and_counts_as_false(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", value)
    assert settings().log_model == "false"
    assert "WANDB_LOG_MODEL" in caplog.text


def test_an_odd_word_in_other_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("WANDB_MODE", "maybe"),
        ("WANDB_CONSOLE", "maybe"),
        ("WANDB_X_STATS_SAMPLING_INTERVAL", "often"),
        ("WANDB_X_DISABLE_STATS", "perhaps"),
    ):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError, match=name):
            settings()
        monkeypatch.delenv(name)


def test_stats_can_be_switched_off_by_the_vendors_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
    assert settings().system_metrics == 0.0


@pytest.mark.parametrize(
    ("base", "app"),
    [
        (CLOUD, "https://wandb.ai"),
        ("https://api.wandb.example.org", "https://wandb.example.org"),
        ("https://api.acme.com", "https://app.acme.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_pages_for_people_are_where_the_vendors_package_says(base: str, app: str) -> None:
    assert app_url(base, {}) == app
    assert app_url(base, {"WANDB_APP_URL": "https://pages/"}) == "https://pages"


def test_the_key_is_that_of_the_variable_or_of_netrc_or_of_a_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = "1" * 40, "2" * 40, "local-" + "3" * 40
    assert api_key(CLOUD, {}) is None
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\napi_key = {three}\n")
    assert api_key(CLOUD, {}) == three
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        f"machine api.forge.coreweave.com\n login user\n password {two}\n"
        f"default login x password {'9' * 40}\n"
    )
    netrc.chmod(0o600)
    assert api_key(CLOUD, {}) == two  # the same deployment, by its other name
    assert api_key("http://h:1", {}) == three
    assert api_key(CLOUD, {"WANDB_API_KEY": one}) == one
    other = tmp_path / "other"
    other.write_text(f"machine h:1 login user password {one}\n")
    other.chmod(0o600)
    assert api_key("http://h:1", {"NETRC": str(other)}) == one


def test_a_key_that_is_none_or_a_file_that_is_broken_is_refused_without_being_quoted(
    tmp_path: Path,
) -> None:
    for key in ("short-secret", "x" * 39, "y" * 40 + " z"):
        with pytest.raises(AccessError, match="characters, and is none") as caught:
            api_key(CLOUD, {"WANDB_API_KEY": key})
        assert key not in str(caught.value)
    (tmp_path / ".netrc").write_text("machine\nnonsense secret\n")
    with pytest.raises(AccessError, match=r"\.netrc") as caught:
        api_key(CLOUD, {})
    assert "secret" not in str(caught.value)


def test_it_is_configured_by_a_key_or_by_being_offline() -> None:
    key = {"WANDB_API_KEY": KEY}
    assert not WandbCallback.is_configured({})
    assert WandbCallback.is_configured(key)
    assert WandbCallback.is_configured({"WANDB_MODE": "offline"})
    assert WandbCallback.is_configured({"WANDB_API_KEY": "broken"})
    assert not WandbCallback.is_configured({**key, "WANDB_MODE": "disabled"})
    assert not WandbCallback.is_configured({**key, "WANDB_DISABLED": "true"})
    assert WandbCallback in get_reporting_integration_callbacks("wandb", {})


async def test_without_a_key_it_gives_up_with_what_to_do() -> None:
    made = WandbCallback()
    made.describe(description())
    await made.on_train_begin(None, asynccb.TrainerState(), None)
    with pytest.raises(AccessError, match=r"no W&B key for .*: set WANDB_API_KEY"):
        await made.flush()


def test_disabled_makes_neither_a_folder_nor_a_request(wandb: WandbServer, tmp_path: Path) -> None:
    tracker = WandbCallback(mode="disabled", console=True)
    with asynccb.CallbackDispatcher([tracker], max_steps=2, directory=tmp_path / "runs") as run:
        for _ in range(2):
            run.step(logs={"loss": 1.0})
    assert wandb.sent == []
    assert not (tmp_path / "runs").exists()


def test_offline_keeps_everything_for_a_sync_whatever_the_other_trackers_do(
    wandb: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from asynccb._cli import main
    from tests.support.callbacks_for_tests import FileTracker, read_lines

    callbacks = [WandbCallback(mode="offline"), FileTracker(str(tmp_path / "sent"))]
    with asynccb.CallbackDispatcher(callbacks, max_steps=3, directory=tmp_path / "runs") as run:
        for _ in range(3):
            run.step(logs={"loss": 1.0})
    assert wandb.sent == []
    assert read_lines(tmp_path / "sent")[-1]["status"] == "finished"
    assert "asynccb sync" in capsys.readouterr().err
    assert main(["sync", str(tmp_path / "runs")]) == 0
    assert len(wandb.run().history) == 3
    assert wandb.run().state == "finished"
    assert wandb.run().events == []  # this machine is not the training's


def test_the_header_is_the_vendors(wandb: WandbServer) -> None:
    expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
    client = WandbCallback().connect()
    assert client._headers == {"Authorization": expected}
