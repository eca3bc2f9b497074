"""The AzureML tracker: a real MLflow server behind a workspace's addresses, tokens and limits."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb._journal.uploads import Folder, Spool
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from asynccb.trackers.azure_ml import AzureMLCallback
from asynccb.trackers.azure_ml.files import put_blob
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.trackers.azure_ml.rules import WORKSPACE, AzureML, web_token
from tests.trackers.contract_cases import workspace_address
from tests.trackers.front import Front, fronting
from tests.trackers.lane import deliver, description, play, training
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.scripted import certificate, serving_with

TOKEN = "token-of-the-workspace"


class Workspace:
    """What a test has to do with: the rules, the front, and the MLflow server behind both."""

    def __init__(self, rules: AzureML, front: Front, server: RealMLflow, name: str) -> None:
        self.rules, self.front, self.server, self.experiment = rules, front, server, name

    def job(self, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN) -> str:
        """Make a run, as the service does for a job, and set what it sets there."""
        made = self.server.call("POST", "experiments/create", json={"name": self.experiment})
        run = self.server.call("POST", "runs/create", json=made)["run"]["info"]["run_id"]
        self.rules.job, self.rules.tokens = run, {token}
        for name, value in {
            "MLFLOW_RUN_ID": run,
            "AZUREML_RUN_ID": run,
            "MLFLOW_EXPERIMENT_ID": made["experiment_id"],
            "MLFLOW_TRACKING_TOKEN": token,
        }.items():
            monkeypatch.setenv(name, value)
        return run

    def only_run(self) -> dict[str, Any]:
        (run,) = self.server.runs(self.experiment)
        return run

    def losses(self) -> list[tuple[int, float]]:
        run = self.only_run()["info"]["run_id"]
        return [(step, value) for step, value, _ in self.server.points(run, "loss")]


@pytest.fixture
def workspace(
    mlflow_server: RealMLflow,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Workspace]:
    go_home(monkeypatch, tmp_path, "MLFLOW", "AZURE")
    file = certificate(tmp_path)
    rules = AzureML(mlflow_server.uri, TOKEN)
    with fronting(mlflow_server.uri, rules, serving_with(file)) as front:
        rules.url = front.url
        monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace_address(front.url))
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
        yield Workspace(rules, front, mlflow_server, request.node.name)


def made(**settings: Any) -> AzureMLCallback:
    tracker = AzureMLCallback(**settings)
    tracker.describe(description())
    return tracker


async def test_the_address_of_a_workspace_becomes_that_of_its_mlflow(workspace: Workspace) -> None:
    tracker = made()
    await deliver(tracker, training(5))
    await tracker.finish("finished")
    await tracker.close()
    assert workspace.losses() == [(step, 1 / step) for step in range(1, 6)]
    run = workspace.only_run()["info"]
    assert run["status"] == "FINISHED"
    assert tracker.address == f"https://ml.azure.com/runs/{run['run_id']}?wsid={WORKSPACE}"
    prefix = f"/mlflow/v2.0{WORKSPACE}/api/2.0/mlflow/"
    assert all(r.target.startswith(prefix) for r in workspace.front.requests)
    assert workspace.rules.refused == []


async def test_a_job_gets_its_metrics_and_is_never_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workspace.job(monkeypatch)
    monkeypatch.delenv("MLFLOW_RUN_ID")  # the other variable says it too
    tracker = made()
    await deliver(tracker, training(3))
    for status in ("failed", "finished"):
        await tracker.finish(status)  # type: ignore[arg-type]
    await tracker.close()
    assert workspace.only_run()["info"]["run_id"] == run
    assert len(workspace.losses()) == 3
    assert not [r for r in workspace.front.requests if "runs/update" in r.target]
    assert workspace.rules.refused == []


async def test_a_child_of_a_job_is_a_run_of_ours_and_is_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = workspace.job(monkeypatch)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    tracker = made(nested_run=True)
    await deliver(tracker, training(1))
    await tracker.finish("finished")
    await tracker.close()
    runs = {run["info"]["run_id"]: run for run in workspace.server.runs(workspace.experiment)}
    (child,) = set(runs) - {parent}
    assert (runs[child]["info"]["status"], runs[parent]["info"]["status"]) == (
        "FINISHED",
        "RUNNING",
    )
    assert workspace.rules.refused == []


async def test_a_jobs_token_is_renewed_before_it_ends(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.job(monkeypatch, token=web_token("first", 90.0))
    workspace.rules.next_tokens = [web_token(f"next {n}", 3600.0) for n in range(5)]
    tracker = made()
    await deliver(tracker, training(3))
    renewals = workspace.rules.renewals
    assert renewals >= 1
    await tracker.heartbeat()
    await deliver(tracker, training(3, first=4)[1:])
    await tracker.close()
    assert workspace.rules.renewals == renewals
    assert len(workspace.losses()) == 6


async def test_a_token_that_is_refused_is_renewed_once_and_the_request_sent_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.job(monkeypatch)
    tracker = made()
    await deliver(tracker, training(2))

    async def takes_only_the_old_one_for_renewal(request: Any) -> Any:
        if "/history/" in request.target:
            workspace.rules.tokens = {TOKEN}
        return await workspace.rules(request)

    workspace.rules.next_tokens = ["another"]
    workspace.rules.tokens = {"not the one"}
    workspace.front.rules = takes_only_the_old_one_for_renewal
    await deliver(tracker, training(2, first=3)[1:])
    await tracker.close()
    assert workspace.rules.renewals == 1
    assert len(workspace.losses()) == 4


async def test_a_service_principal_gets_its_token_from_the_authority(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", workspace.front.url)
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant-1")
    monkeypatch.setenv("AZURE_CLIENT_ID", "user-1")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "secret-of-the-principal")
    tracker = made()
    await deliver(tracker, training(2))
    assert len(workspace.losses()) == 2
    assert "secret-of-the-principal" not in f"{vars(tracker)} {tracker.state()}"
    await tracker.close()
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    refused = made()
    await play(refused, training(1))
    with pytest.raises(AccessError) as caught:
        await refused.flush()
    assert "wrong" not in str(caught.value)
    await refused.close()


async def test_without_any_credentials_it_says_what_to_set(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setitem(sys.modules, "azure.identity", None)  # as if it was not installed
    tracker = made()
    await play(tracker, training(1))
    with pytest.raises(AccessError, match="MLFLOW_TRACKING_TOKEN"):
        await tracker.flush()
    await tracker.close()


async def test_parameters_beyond_two_hundred_are_left_out_and_counted(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = AzureMLCallback()
    tracker.describe(description(**{f"p{n}": n for n in range(300)}))
    await deliver(tracker, training(1))
    await tracker.close()
    params = workspace.server.params(workspace.only_run()["info"]["run_id"])
    assert len(params) == 200
    assert tracker.rejected == 302 - 200
    assert caplog.text.count("200 parameters a run") == 1
    assert workspace.rules.refused == []


async def test_a_checkpoint_goes_to_the_signed_addresses_without_the_token_and_once(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights").write_bytes(b"w" * 5000)
    (folder / "empty").write_bytes(b"")
    tracker = made(log_artifacts=True)
    await deliver(tracker, training(1))
    for number in (1, 2):  # as after a crash, before which all was stored
        spool = Spool(tmp_path / "spool" / str(number))
        (tmp_path / "spool").mkdir(exist_ok=True)
        await spool.keep(1, 5, Folder(folder, "checkpoint-5"))
        await tracker.upload(await spool.first())
    await tracker.close()
    run = workspace.only_run()["info"]["run_id"]
    assert workspace.rules.blobs == {
        f"{run}/checkpoint-5/sub/weights": b"w" * 5000,
        f"{run}/checkpoint-5/empty": b"",
    }
    assert tracker.rejected == 0
    assert workspace.rules.refused == []


async def test_a_large_file_goes_in_blocks(workspace: Workspace, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(2_500_000)
    (tmp_path / "large").write_bytes(content)
    reach = Transport(authority=os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = Client(workspace.front.url, headers=headers, transport=reach)
    path = f"history/v1.0{WORKSPACE}/experimentids/7/runs/r"
    await put_blob(client, path, tmp_path / "large", "c/large", whole=1 << 20, block=1 << 20)
    await client.close()
    assert workspace.rules.blobs == {"r/c/large": content}
    blocks = [r for r in workspace.front.requests if "comp=block&" in r.target]
    assert [len(r.body) for r in blocks] == [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]


def test_a_live_run_stands_for_its_workspace_and_its_id(workspace: Workspace) -> None:
    address = os.environ["MLFLOW_TRACKING_URI"]
    place = SimpleNamespace(get_mlflow_tracking_uri=lambda: address)
    run = SimpleNamespace(id="run-7", experiment=SimpleNamespace(workspace=place))
    tracker = AzureMLCallback(run)
    assert (tracker.settings.run_id, tracker.settings.workspace) == ("run-7", WORKSPACE)
    with pytest.raises(ConfigurationError, match="no Run of azureml-core"):
        AzureMLCallback(SimpleNamespace(id="OfflineRun"))
    with pytest.raises(ConfigurationError, match="not both"):
        AzureMLCallback(run, run_id="other")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "https://host/mlflow",
        "azureml://eastus.api.azureml.ms/mlflow/v1.0/subscriptions/s",
        f"azureml://user:pass@host/mlflow/v1.0{WORKSPACE}",
    ],
)
def test_an_address_that_names_no_workspace_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigurationError) as caught:
        AzureMLCallback()
    assert "pass" not in str(caught.value)


def test_the_address_of_a_workspace_is_azuremls_and_not_mlflows() -> None:
    environ = {"MLFLOW_TRACKING_URI": f"azureml://eastus.api.azureml.ms/mlflow/v1.0{WORKSPACE}"}
    names = [tracker.name for tracker in get_reporting_integration_callbacks("all", environ)]
    assert "azure_ml" in names
    assert "mlflow" not in names


def test_twenty_thousand_steps_in_ten_seconds_arrive_within_the_limits(
    workspace: Workspace, tmp_path: Path
) -> None:
    with running(AzureMLCallback(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step in range(1, 20_001):
            run.step(logs={"loss": 1 / step})
        assert run.flush(120)
    assert workspace.losses() == [(n, 1 / n) for n in range(1, 20_001)]
    assert workspace.rules.refused == []
    sent = [json.loads(r.body) for r in workspace.front.requests if "/log-batch" in r.target]
    sizes = [len(body["metrics"]) for body in sent if "metrics" in body]
    assert max(sizes) == 200
    assert len(sizes) <= 130
