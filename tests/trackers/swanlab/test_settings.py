"""Where the SwanLab tracker's settings and its key come from, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from asynccb.trackers.swanlab import SwanLabCallback
from asynccb.trackers.swanlab.access import api_key
from tests.support.surroundings import Variables, check_read, go_home
from tests.trackers.lane import deliver, play, training
from tests.trackers.swanlab.runs import tracker
from tests.trackers.swanlab.server import KEY, SwanLabServer


@pytest.fixture
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "SWANLAB")
    work = tmp_path / "my work"
    work.mkdir()
    monkeypatch.chdir(work)


pytestmark = pytest.mark.usefixtures("_clean")


def settings(**given: Any) -> Any:
    return SwanLabCallback(**given).settings


def log_in(folder: Path, api: str, web: str, key: str = "saved-key") -> None:
    """Leave what `swanlab login` leaves."""
    folder.mkdir(exist_ok=True)
    (folder / ".netrc").write_text(f"machine {api}\n\tlogin {web}\n\tpassword {key}\n")


def test_without_anything_it_is_the_vendors_cloud_and_the_folders_name(tmp_path: Path) -> None:
    made = settings()
    assert (made.api_host, made.web_host) == ("https://api.swanlab.cn", "https://swanlab.cn")
    assert (made.mode, made.project, made.workspace) == ("cloud", "my_work", None)
    assert (made.run_id, made.resume, made.log_model, made.tags) == (None, "allow", "false", [])
    assert made.log_dir == str(tmp_path / "my work" / "swanlog")
    assert (made.console, made.system_metrics) == (False, 10.0)


def test_every_variable_is_read_and_an_argument_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables: Variables = {
        "SWANLAB_PROJECT": ("p", {"project": "p"}),
        "SWANLAB_WORKSPACE": ("w", {"workspace": "w"}),
        "SWANLAB_EXP_NAME": ("n", {"name": None, "usual_name": "n"}),
        "SWANLAB_DESCRIPTION": ("d", {"description": "d"}),
        "SWANLAB_TAGS": ("a, b,,a", {"tags": ["a", "b"]}),
        "SWANLAB_GROUP": ("g", {"group": "g"}),
        "SWANLAB_JOB_TYPE": ("j", {"job_type": "j"}),
        "SWANLAB_PUBLIC": ("true", {"public": True}),
        "SWANLAB_RUN_ID": ("r", {"run_id": "r"}),
        "SWANLAB_RESUME": ("must", {"resume": "must"}),
        "SWANLAB_MODE": ("offline", {"mode": "local"}),
        "SWANLAB_LOG_DIR": ("logs", {"log_dir": str(tmp_path / "my work" / "logs")}),
        "SWANLAB_LOG_MODEL": ("end", {"log_model": "end"}),
        "SWANLAB_TERMINAL_PROXY_TYPE": ("stdout", {"console": True}),
        "SWANLAB_PROBE_MONITOR_INTERVAL": ("30", {"system_metrics": 30.0}),
        "SWANLAB_API_HOST": ("http://h:1/api/", {"api_host": "http://h:1"}),
        "SWANLAB_WEB_HOST": ("web.example/x", {"web_host": "https://web.example"}),
    }
    check_read(monkeypatch, variables, settings)
    given = settings(
        project="q", name="m", tags=("c",), log_model="checkpoint", mode="online", run_id="s",
        resume=True, public=False, log_dir=tmp_path, console=False, system_metrics=False,
    )  # fmt: skip
    assert (given.project, given.name, given.tags) == ("q", "m", ["c"])
    assert (given.log_model, given.mode, given.run_id) == ("checkpoint", "cloud", "s")
    assert (given.console, given.system_metrics) == (False, 0.0)
    assert (given.resume, given.public, given.log_dir) == ("allow", False, str(tmp_path))


def test_the_newer_names_of_variables_go_before_the_older_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PROJ_NAME": "old", "PROJECT_NAME": "new", "EXPERIMENT_NAME": "n"}.items():
        monkeypatch.setenv(f"SWANLAB_{name}", value)
    monkeypatch.setenv("SWANLAB_EXPERIMENT_TAGS", '["a", "b,c"]')
    made = settings()
    assert (made.project, made.usual_name, made.tags) == ("new", "n", ["a", "b,c"])


def test_a_server_of_ones_own_has_its_pages_at_the_same_address() -> None:
    made = settings(api_host="http://10.0.0.1:8000")
    assert (made.api_host, made.web_host) == ("http://10.0.0.1:8000", "http://10.0.0.1:8000")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a mode that there is not": ({"mode": "remote"}, "cloud, local, offline or disabled"),
    "a project with a space": ({"project": "my work"}, "SWANLAB_PROJECT"),
    "a project that is too long": ({"project": "p" * 101}, "SWANLAB_PROJECT"),
    "a workspace with a slash": ({"workspace": "a/b"}, "SWANLAB_WORKSPACE"),
    "an id with a slash": ({"run_id": "a/b"}, "SWANLAB_RUN_ID"),
    "a resume that there is not": ({"resume": "auto"}, "must, allow or never"),
    "a resume without an id": ({"resume": "must"}, "SWANLAB_RUN_ID"),
    "an id for a new run": ({"resume": "never", "run_id": "r"}, "leave out"),
    "tags in one string": ({"tags": "a,b"}, "a list of strings"),
    "too many tags": ({"tags": [str(n) for n in range(31)]}, "31 tags"),
    "an empty tag": ({"tags": [""]}, "1 to 512"),
    "a description that is too long": ({"description": "d" * 1025}, "1025 characters"),
    "a model that there is not": ({"log_model": "true"}, "SWANLAB_LOG_MODEL"),
    "an address that is none": ({"api_host": "http://"}, "no address"),
    "a port that is none": ({"api_host": "http://h:x"}, "no address"),
    "an address with a password": ({"api_host": "http://u:secret@h"}, "SWANLAB_API_KEY"),
    "a directory that is a file": ({"log_dir": __file__}, "no directory"),
    "samples that are too close": ({"system_metrics": 1}, "at least 5"),
    "a console that there is not": ({"console": "all"}, "True or False"),
    "public as a word": ({"public": "yes"}, "True or False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_at_once(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message) as caught:
        settings(**given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("resume", ["must", "allow", "never", None])
def test_the_variable_says_how_a_run_is_resumed(
    resume: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if resume is not None:
        monkeypatch.setenv("SWANLAB_RESUME", resume)
    if resume != "never":
        monkeypatch.setenv("SWANLAB_RUN_ID", "mine")
    assert settings().resume == (resume or "allow")


@pytest.mark.parametrize(
    ("mode", "local", "enabled"),
    [("cloud", False, True), ("local", True, True), ("disabled", False, False)],
)
def test_the_variable_says_the_mode(
    mode: str, local: bool, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_MODE", mode)
    made = SwanLabCallback()
    assert (made.local, made.enabled) == (local, enabled)


def test_the_variable_s_mode_is_case_sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_MODE", "Local")
    with pytest.raises(ConfigurationError, match="SWANLAB_MODE"):
        SwanLabCallback()


def test_what_is_in_a_variable_is_refused_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_RESUME", "sometimes")
    with pytest.raises(ConfigurationError, match="SWANLAB_RESUME"):
        settings()


def test_only_what_goes_to_a_server_is_held_back_offline() -> None:
    assert [SwanLabCallback(mode=mode).local for mode in ("cloud", "local", "offline")] == [
        False,
        True,
        True,
    ]


def test_a_disabled_tracker_wants_no_event() -> None:
    assert not SwanLabCallback(mode="disabled").enabled
    assert SwanLabCallback(mode="local").enabled


def test_samples_are_switched_off_by_the_vendors_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_PROBE_MONITOR", "false")
    assert settings().system_metrics == 0.0


def test_it_is_configured_by_a_key_a_login_or_a_mode_that_needs_none(tmp_path: Path) -> None:
    is_configured = SwanLabCallback.is_configured
    assert not is_configured({})
    assert is_configured({"SWANLAB_API_KEY": "k"})
    assert is_configured({"SWANLAB_MODE": "local"})
    assert not is_configured({"SWANLAB_API_KEY": "k", "SWANLAB_MODE": "disabled"})
    log_in(tmp_path / ".swanlab", "https://api.swanlab.cn", "https://swanlab.cn")
    assert is_configured({})
    assert SwanLabCallback in get_reporting_integration_callbacks("all", {})


def test_a_login_names_the_server_and_its_key_is_for_that_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in(tmp_path / ".swanlab", "http://own:8000/api", "http://pages:80")
    made = settings()
    assert (made.api_host, made.web_host) == ("http://own:8000", "http://pages:80")
    assert api_key("http://own:8000", {}) == "saved-key"
    with pytest.raises(AccessError, match="SWANLAB_API_KEY") as caught:
        api_key("https://api.swanlab.cn", {})
    assert "saved-key" not in str(caught.value)
    assert api_key("http://own:8000", {"SWANLAB_API_KEY": "variable"}) == "variable"
    log_in(Path(".swanlab"), "http://project:1", "http://project:2", "project-key")
    assert api_key("http://project:1", {}) == "project-key"
    monkeypatch.setenv("SWANLAB_API_HOST", "http://third:1")
    assert settings().api_host == "http://third:1"


def test_a_login_that_cannot_be_read_is_said_and_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".swanlab").mkdir()
    (tmp_path / ".swanlab" / ".netrc").write_text("machine h passwort saved-key\n")
    with pytest.raises(AccessError):
        api_key("https://api.swanlab.cn", {})
    assert "swanlab login" in caplog.text
    assert "saved-key" not in caplog.text


async def test_a_saved_key_opens_a_session(
    swanlab: SwanLabServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SWANLAB_API_KEY")
    monkeypatch.delenv("SWANLAB_API_HOST")
    log_in(tmp_path / "elsewhere", swanlab.url, "http://pages:1", KEY)
    monkeypatch.setenv("SWANLAB_ROOT", str(tmp_path / "elsewhere"))
    made = tracker(workspace="alice", public=True)
    await deliver(made, training(2))
    assert len(swanlab.run().values("train/loss")) == 2
    assert swanlab.projects["proj"]["visibility"] == "PUBLIC"
    assert made.address is not None
    assert made.address.startswith("http://pages:1/@alice/proj/runs/")
    await made.close()


async def test_without_a_key_the_tracker_says_so_when_it_has_something_to_send(
    swanlab: SwanLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWANLAB_API_KEY")
    made = tracker()
    await play(made, training(1))
    with pytest.raises(AccessError, match="set SWANLAB_API_KEY, or run `swanlab login`"):
        await made.flush()
    await made.close()
