"""The DagsHub tracker: a real MLflow server behind DagsHub's addresses, credentials and files."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import asynccb
from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb._journal.uploads import Folder, Kept, Spool
from asynccb.trackers.dagshub import DagsHubCallback
from asynccb.trackers.dagshub.settings import find_credentials
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.trackers.dagshub.rules import DagsHub
from tests.trackers.front import Front, fronting
from tests.trackers.lane import deliver, description, play, training, until_done
from tests.trackers.mlflow.server import RealMLflow

TOKEN = "token-of-dagshub"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "MLFLOW", "DAGSHUB")
    monkeypatch.delenv("BRANCH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hub(
    mlflow_server: RealMLflow, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[DagsHub]:
    rules = DagsHub(mlflow_server.uri, TOKEN)
    with fronting(mlflow_server.uri, rules) as front:
        rules.front = front  # type: ignore[attr-defined]
        monkeypatch.setenv("DAGSHUB_CLIENT_HOST", front.url)
        monkeypatch.setenv("DAGSHUB_USER_TOKEN", TOKEN)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{front.url}/ada/proj.mlflow")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
        yield rules


def front_of(hub: DagsHub) -> Front:
    return hub.front  # type: ignore[attr-defined]


def made(**settings: Any) -> DagsHubCallback:
    tracker = DagsHubCallback(**settings)
    tracker.describe(description())
    return tracker


async def kept(folder: Path, spool: Path, name: str) -> Kept:
    waiting = Spool(spool)
    await waiting.keep(1, 5, Folder(folder, name))
    return await waiting.first()


def only_run(server: RealMLflow, experiment: str) -> dict[str, Any]:
    (run,) = server.runs(experiment)
    return run


def losses(server: RealMLflow, run: dict[str, Any]) -> list[tuple[int, float]]:
    return [(step, value) for step, value, _ in server.points(run["info"]["run_id"], "loss")]


async def test_a_run_is_told_with_the_users_name_and_token_to_the_repositorys_mlflow(
    hub: DagsHub, mlflow_server: RealMLflow, request: pytest.FixtureRequest
) -> None:
    tracker = made()
    await deliver(tracker, training(5))
    await tracker.finish("finished")
    await tracker.close()
    run = only_run(mlflow_server, request.node.name)
    assert losses(mlflow_server, run) == [(step, 1 / step) for step in range(1, 6)]
    assert run["info"]["status"] == "FINISHED"
    front = front_of(hub)
    assert tracker.address is not None
    assert tracker.address.startswith(f"{front.url}/ada/proj.mlflow/#/experiments/")
    basic = base64.b64encode(f"ada:{TOKEN}".encode()).decode()
    seen = {(r.target.split("/")[1], r.headers["authorization"]) for r in front.requests}
    assert seen == {("api", f"Bearer {TOKEN}"), ("ada", f"Basic {basic}")}
    assert hub.refused == []


async def test_a_checkpoint_is_stored_with_the_run(
    hub: DagsHub, mlflow_server: RealMLflow, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "weights").write_bytes(b"w" * 1000)
    tracker = made(log_artifacts=True)
    await deliver(tracker, training(1))
    await tracker.upload(await kept(tmp_path / "c", tmp_path / "spool" / "x", "checkpoint-5"))
    await tracker.close()
    run = only_run(mlflow_server, request.node.name)
    listed = mlflow_server.call(
        "GET",
        "artifacts/list",
        params={"run_id": run["info"]["run_id"], "path": "checkpoint-5"},
    )
    assert [(f["path"], f["file_size"]) for f in listed["files"]] == [
        ("checkpoint-5/weights", 1000)
    ]
    assert tracker.rejected == 0


@pytest.mark.parametrize("value", ["True", "1", "False", None])
def test_the_variable_says_whether_the_output_is_committed(
    value: str | None, hub: DagsHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    if value is not None:
        monkeypatch.setenv("HF_DAGSHUB_LOG_ARTIFACTS", value)
    theirs = (value or "FALSE").upper() in integrations.ENV_VARS_TRUE_VALUES
    assert made().settings.log_output is theirs


def test_the_branch_is_main_or_that_of_its_variable_and_a_model_has_no_name(
    hub: DagsHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made().settings.branch == "main"
    monkeypatch.setenv("BRANCH", "experiments")
    before = made().settings
    assert before.branch == "experiments"
    monkeypatch.setenv("HF_DAGSHUB_MODEL_NAME", "net")
    assert made().settings == before


def test_the_output_is_committed_when_the_training_ends_but_for_its_journals(
    hub: DagsHub, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (output / "checkpoint-1").mkdir(parents=True)
    (output / "checkpoint-1" / "weights").write_bytes(b"w")
    (output / "notes.txt").write_text("fine")
    args = asynccb.TrainingArguments(output_dir=str(output))
    with running(DagsHubCallback(log_output=True), args=args) as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        run.emit("on_train_end")
        run.close(timeout=60.0)
        (counts,) = run.statistics().callbacks.values()
    assert (counts.rejected, counts.failed) == (0, 0)
    files = hub.branches["main"].files
    assert set(files) == {"README.md", "artifacts/checkpoint-1/weights", "artifacts/notes.txt"}
    assert files["artifacts/checkpoint-1/weights"] == b"w"
    assert len(hub.branches["main"].commits) == 2
    assert hub.refused == []


async def test_a_commit_survives_a_race_a_server_error_and_a_lost_answer_and_is_made_once(
    hub: DagsHub, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / "out" / name).write_text(name)
    hub.racing, hub.failing = 1, 1
    front_of(hub).losing = True
    tracker = made(log_output=True, branch="results/x")
    folder = await kept(tmp_path / "out", tmp_path / "spool" / "x", "artifacts")
    await until_done(lambda: tracker.upload(folder))
    await tracker.close()
    ours = [c for c in hub.branches["results/x"].commits if "Output" in c.summary]
    assert [c.files for c in ours] == [{"artifacts/a": b"a", "artifacts/b": b"b"}]
    assert tracker.rejected == 0
    assert "artifacts/a" not in hub.branches["main"].files


async def test_many_files_are_committed_in_groups(hub: DagsHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for number in range(250):
        (tmp_path / "out" / f"{number:03d}").write_text(str(number))
    tracker = made(log_output=True)
    await tracker.upload(await kept(tmp_path / "out", tmp_path / "spool" / "x", "artifacts"))
    await tracker.close()
    assert [len(c.files) for c in hub.branches["main"].commits] == [1, 100, 100, 50]
    assert hub.branches["main"].files["artifacts/249"] == b"249"


async def test_a_repository_that_is_not_there_is_an_access_error(hub: DagsHub) -> None:
    tracker = made(repo_owner="ada", repo_name="none")
    await play(tracker, training(1))
    with pytest.raises(AccessError, match="no DagsHub repository ada/none"):
        await tracker.flush()
    await tracker.close()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"DAGSHUB_USER_TOKEN": "t", "DAGSHUB_USERNAME": "u", "DAGSHUB_PASSWORD": "p"}, ("", "t")),
        ({"DAGSHUB_USERNAME": "u", "DAGSHUB_PASSWORD": "p"}, ("u", "p")),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, ("", "saved-2")),
    ],
)
def test_credentials_are_found_where_the_vendor_keeps_them(
    variables: dict[str, str], found: tuple[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    rest = {"expiry": "never", "token_type": "app-token"}
    saved = {
        "version": "1",
        "https://other.com": [{"access_token": "saved-1", **rest}],
        "https://dagshub.com": [{"access_token": "saved-2", **rest}],
    }
    file.write_text(yaml.safe_dump(saved))
    environ = {"DAGSHUB_CLIENT_TOKENS_CACHE": str(file), **variables}
    credentials = find_credentials("https://dagshub.com", environ)
    assert (credentials.user, credentials.secret) == found
    assert repr(credentials) == "<Credentials>"


def test_credentials_of_the_address_are_used_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "https://ada:pass%2Fword@dagshub.com/ada/proj.mlflow"
    credentials = find_credentials("https://dagshub.com", {"MLFLOW_TRACKING_URI": address})
    assert (credentials.user, credentials.secret) == ("ada", "pass/word")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    tracker = DagsHubCallback()
    assert tracker.settings.repository == "ada/proj"
    assert "pass" not in json.dumps(tracker.state())


def test_without_credentials_it_says_what_to_set() -> None:
    with pytest.raises(AccessError, match="DAGSHUB_USER_TOKEN"):
        find_credentials("https://dagshub.com", {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "repo_owner and repo_name"),
        ({"repo_owner": "a"}, "repo_owner and repo_name"),
        ({"repo_owner": "a/b", "repo_name": "c"}, "'a/b'"),
        ({"repo_owner": "a", "repo_name": "b", "branch": "x y"}, "'x y'"),
        ({"repo_owner": "a", "repo_name": "b", "log_output": "yes"}, "True or False"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DagsHubCallback(**given)


def test_the_address_of_a_repository_is_dagshubs_and_not_mlflows() -> None:
    environ = {"MLFLOW_TRACKING_URI": "https://dagshub.com/ada/proj.mlflow"}
    names = [tracker.name for tracker in get_reporting_integration_callbacks("all", environ)]
    assert "dagshub" in names
    assert "mlflow" not in names


def test_twenty_thousand_steps_in_ten_seconds_arrive_in_few_requests(
    hub: DagsHub, mlflow_server: RealMLflow, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with running(DagsHubCallback(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step in range(1, 20_001):
            run.step(logs={"loss": 1 / step})
        assert run.flush(120)
    found = only_run(mlflow_server, request.node.name)
    assert losses(mlflow_server, found) == [(n, 1 / n) for n in range(1, 20_001)]
    sent = [json.loads(r.body) for r in front_of(hub).requests if r.target.endswith("/log-batch")]
    sizes = [len(body["metrics"]) for body in sent if "metrics" in body]
    assert len(sizes) <= 40
    assert max(sizes) <= 1000
