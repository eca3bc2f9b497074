"""
The trackers that the contract is tested with: one entry each in `CASES`.

An entry is a context manager that takes a folder and the session's servers, starts what the tracker
needs, and yields a `Case`: how to make it, what stands before its server, how to read what arrived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import asynccb
from asynccb.trackers.base import Tracker
from tests.support.waiting import eventually
from tests.trackers.azure_ml.rules import WORKSPACE, AzureML
from tests.trackers.clearml.server import ACCESS, ClearMLServer, clearml_server
from tests.trackers.comet_ml.archives import archived
from tests.trackers.comet_ml.server import CometServer, comet_server
from tests.trackers.dagshub.rules import DagsHub
from tests.trackers.dvclive.studio import Studio, studio_server
from tests.trackers.dvclive.written import numeric, plain, studio_rows, tables
from tests.trackers.front import Front, fronting
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.mlflow.stores import StoreReader, database, folder_store
from tests.trackers.scripted import certificate, serving_with
from tests.trackers.swanlab.reader import SwanLabReader
from tests.trackers.swanlab.server import SwanLabServer, swanlab_server
from tests.trackers.tensorboard.event_files import logged
from tests.trackers.trackio.server import WRITE_TOKEN, RealTrackio
from tests.trackers.wandb.server import WandbServer, wandb_server

SECRET = WRITE_TOKEN


class Value(NamedTuple):
    """One value as the server gives it back; NaN as None where it cannot say NaN."""

    step: int
    name: str
    value: Any


@dataclass
class Case:
    """Say how one tracker is made, reached and read."""

    name: str
    """Public name of the class."""
    read: Callable[[], dict[str, list[Value]]]
    """Returns the values of each run, by the run's status as the server has it, in order of step;
    only those that were logged, not what the tracker adds."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment; a credential in it is `SECRET`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    front: Front | None = None
    """What stands before the server; None for a tracker that writes files."""
    finished: str = "finished"
    """How the server calls a run that ended well; `"finished"` where it has no status."""
    loss: str = "loss"
    """Name under which the log's `loss` arrives."""
    replaces: bool = False
    """Whether what is logged again at a step takes the place of what was there."""
    single: frozenset[str] = frozenset()
    """Names that arrive without a step of their own."""

    keeps_logs: bool = True
    """Whether it keeps what is logged; one that does not measures by itself, and where a test
    reads logs back, the tracker's own tests say what becomes of its values."""

    refused: frozenset[str] = frozenset()
    """Names of metrics that its store cannot hold beside the others."""
    works_alone: bool = True
    """Whether it does anything outside its vendor's own process; where one does not, tests of its
    own run it there."""

    def needs_to_work(self) -> None:
        """Skip the test for a tracker that does nothing in this process."""
        if not self.works_alone:
            pytest.skip("does nothing outside its vendor's own process")

    def needs_logs(self) -> None:
        """Skip the test for a tracker that keeps no logs."""
        if not self.keeps_logs:
            pytest.skip("keeps nothing of what is logged")

    def make(self) -> Tracker:
        tracker: Tracker = getattr(asynccb, self.name)(**self.arguments)
        return tracker

    def only_run(self) -> tuple[str, list[Value]]:
        """Return the status and the values of the run, which must be the only one."""
        ((status, values),) = self.read().items()
        return status.partition("#")[0], values

    def steps(self) -> list[int]:
        """Return the steps of the loss, in the order of the server."""
        return [value.step for value in self.only_run()[1] if value.name == self.loss]


class Servers:
    """Start the session's servers when they are first asked for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return self._request.getfixturevalue(name)


Open = Callable[[Path, Servers], AbstractContextManager[Case]]


@contextmanager
def tensorboard(folder: Path, servers: Servers) -> Iterator[Case]:
    directory = folder / "board"

    def read() -> dict[str, list[Value]]:
        values = [Value(*value) for value in logged(directory)]
        return {"finished": values} if directory.exists() else {}

    yield Case(
        "TensorBoardCallback",
        read,
        arguments={"logging_dir": str(directory)},
        loss="train/loss",
    )


@contextmanager
def mlflow(folder: Path, servers: Servers) -> Iterator[Case]:
    server: RealMLflow = servers.mlflow_server
    with fronting(server.uri) as front:
        yield Case(
            "MLflowCallback",
            lambda: mlflow_values(server, folder.name),
            variables={
                "MLFLOW_TRACKING_URI": front.url,
                "MLFLOW_EXPERIMENT_NAME": folder.name,
                "MLFLOW_TRACKING_TOKEN": SECRET,
            },
            front=front,
            finished="FINISHED",
        )


def mlflow_values(server: RealMLflow, experiment: str) -> dict[str, list[Value]]:
    """Return the points of each run of an experiment."""
    read: dict[str, list[Value]] = {}
    for number, run in enumerate(server.runs(experiment)):
        names = sorted(metric["key"] for metric in run["data"].get("metrics", []))
        run_id = run["info"]["run_id"]
        values = [
            Value(step, name, None if math.isnan(value) else value)
            for name in names
            for step, value, _ in server.points(run_id, name)
        ]
        read[f"{run['info']['status']}#{number}"] = sorted(values, key=lambda v: v.step)
    return read


@contextmanager
def mlflow_database(folder: Path, servers: Servers) -> Iterator[Case]:
    yield _mlflow_store(database(folder), folder, {})


@contextmanager
def mlflow_folder(folder: Path, servers: Servers) -> Iterator[Case]:
    case = _mlflow_store(folder_store(folder), folder, {"MLFLOW_ALLOW_FILE_STORE": "true"})
    # MLflow keeps each metric in a file of its name, and `x` is one already.
    case.refused = frozenset({"x/text_summary"})
    yield case


def _mlflow_store(store: StoreReader, folder: Path, variables: dict[str, str]) -> Case:
    def read() -> dict[str, list[Value]]:
        return {
            status: [Value(s, name, None if math.isnan(value) else value) for s, name, value in run]
            for status, run in store.values(folder.name).items()
        }

    return Case(
        "MLflowCallback",
        read,
        variables={
            "MLFLOW_TRACKING_URI": store.uri,
            "MLFLOW_EXPERIMENT_NAME": folder.name,
            **variables,
        },
        finished="FINISHED",
    )


@contextmanager
def trackio(folder: Path, servers: Servers) -> Iterator[Case]:
    server: RealTrackio = servers.trackio_server
    with fronting(server.url) as front:
        yield Case(
            "TrackioCallback",
            lambda: trackio_values(server, project_of(folder)),
            variables={
                "TRACKIO_SERVER_URL": f"{front.url}/?write_token={SECRET}",
                "TRACKIO_PROJECT": project_of(folder),
            },
            front=front,
            loss="train/loss",
        )


@contextmanager
def trackio_folder(folder: Path, servers: Servers) -> Iterator[Case]:
    server = RealTrackio(folder)

    def read() -> dict[str, list[Value]]:
        if not (folder / "inbox").exists():
            return {}
        server.start()
        try:
            eventually(lambda: not list(folder.glob("inbox/*/*.jsonl")))
            return trackio_values(server, project_of(folder))
        finally:
            server.stop()

    yield Case(
        "TrackioCallback",
        read,
        variables={"TRACKIO_DIR": str(folder), "TRACKIO_PROJECT": project_of(folder)},
        loss="train/loss",
    )
    server.close()


def project_of(folder: Path) -> str:
    return folder.name.replace("_", "-")[:60]


def trackio_values(server: RealTrackio, project: str) -> dict[str, list[Value]]:
    """Return what each run of a project has; Trackio gives NaN and infinity as null."""
    read: dict[str, list[Value]] = {}
    for number, run in enumerate(server.runs(project)):
        alerts = server.alerts(project, run["id"])
        status = alerts[0]["title"].removeprefix("Run ") if alerts else "finished"
        read[f"{status}#{number}"] = [
            Value(row["step"], name, value)
            for row in server.rows(project, run["id"])
            for name, value in row.items()
            if name not in ("step", "timestamp")
        ]
    return read


@contextmanager
def dagshub(folder: Path, servers: Servers) -> Iterator[Case]:
    server: RealMLflow = servers.mlflow_server
    with fronting(server.uri, DagsHub(server.uri, SECRET)) as front:
        yield Case(
            "DagsHubCallback",
            lambda: mlflow_values(server, folder.name),
            variables={
                "DAGSHUB_CLIENT_HOST": front.url,
                "DAGSHUB_USER_TOKEN": SECRET,
                "MLFLOW_TRACKING_URI": f"{front.url}/ada/proj.mlflow",
                "MLFLOW_EXPERIMENT_NAME": folder.name,
            },
            front=front,
            finished="FINISHED",
        )


@contextmanager
def azureml(folder: Path, servers: Servers) -> Iterator[Case]:
    server: RealMLflow = servers.mlflow_server
    tls = certificate(folder)
    with fronting(server.uri, AzureML(server.uri, SECRET), serving_with(tls)) as front:
        yield Case(
            "AzureMLCallback",
            lambda: mlflow_values(server, folder.name),
            variables={
                "MLFLOW_TRACKING_URI": workspace_address(front.url),
                "MLFLOW_TRACKING_TOKEN": SECRET,
                "MLFLOW_TRACKING_SERVER_CERT_PATH": str(tls),
                "MLFLOW_EXPERIMENT_NAME": folder.name,
            },
            front=front,
            finished="FINISHED",
        )


def workspace_address(url: str) -> str:
    """Return a front's address as that of a workspace."""
    return f"azureml://{url.partition('://')[2]}/mlflow/v1.0{WORKSPACE}"


@contextmanager
def wandb(folder: Path, servers: Servers) -> Iterator[Case]:
    with wandb_server() as server, fronting(server.url) as front:
        server.key = f"local-{SECRET}-{'0' * 20}"
        yield Case(
            "WandbCallback",
            lambda: wandb_values(server),
            variables={
                "WANDB_BASE_URL": front.url,
                "WANDB_API_KEY": server.key,
                "WANDB_PROJECT": "contract",
            },
            front=front,
            loss="train/loss",
            single=frozenset({"train_loss"}),
        )


def wandb_values(server: WandbServer) -> dict[str, list[Value]]:
    """Return what the history and the summary of each run have."""
    read: dict[str, list[Value]] = {}
    for number, run in enumerate(server.runs.values()):
        values = [
            Value(line["train/global_step"], name, value)
            for line in run.metrics
            for name, value in line.items()
            if name not in ("_step", "train/global_step")
        ]
        values += [Value(0, "train_loss", run.summary[n]) for n in run.summary if n == "train_loss"]
        values = [v._replace(value=None) if v.value != v.value else v for v in values]
        read[f"{run.state}#{number}"] = sorted(values, key=lambda v: v.step)
    return read


@contextmanager
def comet(folder: Path, servers: Servers) -> Iterator[Case]:
    with comet_server() as server, fronting(server.url) as front:
        server.key = f"{SECRET}key"
        yield Case(
            "CometCallback",
            lambda: comet_values(server),
            variables={"COMET_URL_OVERRIDE": front.url, "COMET_API_KEY": server.key},
            front=front,
            loss="train/loss",
        )


def comet_values(server: CometServer) -> dict[str, list[Value]]:
    """Return what each experiment has."""
    read: dict[str, list[Value]] = {}
    for number, experiment in enumerate(server.experiments.values()):
        read[f"{experiment.status}#{number}"] = [
            Value(entry["step"], entry["metricName"], comet_value(entry["metricValue"]))
            for entry in sorted(experiment.metrics, key=lambda entry: entry["step"])
        ]
    return read


def comet_value(value: Any) -> Any:
    return None if value == "NaN" else value


@contextmanager
def comet_archive(folder: Path, servers: Servers) -> Iterator[Case]:
    def read() -> dict[str, list[Value]]:
        return {
            f"{'finished' if archive.error is None else 'crashed'}#{number}": [
                Value(metric["step"], metric["metricName"], comet_value(metric["metricValue"]))
                for metric in sorted(archive.metrics, key=lambda metric: metric["step"])
            ]
            for number, archive in enumerate(archived(folder / "archives"))
        }

    yield Case(
        "CometCallback",
        read,
        variables={
            "COMET_START_ONLINE": "0",
            "COMET_OFFLINE_DIRECTORY": str(folder / "archives"),
        },
        loss="train/loss",
    )


@contextmanager
def swanlab(folder: Path, servers: Servers) -> Iterator[Case]:
    with swanlab_server() as server, fronting(server.url) as front:
        server.key = SECRET
        yield Case(
            "SwanLabCallback",
            lambda: swanlab_values(server),
            variables={
                "SWANLAB_API_HOST": front.url,
                "SWANLAB_API_KEY": SECRET,
                "SWANLAB_PROJECT": "contract",
            },
            front=front,
            finished="FINISHED",
            loss="train/loss",
            replaces=True,
        )


def swanlab_values(server: SwanLabServer) -> dict[str, list[Value]]:
    """Return what each run has; SwanLab has one word for all that is not finite."""
    read: dict[str, list[Value]] = {}
    for number, run in enumerate(server.runs.values()):
        values = [
            Value(index, key, None if row["data"] == "nan" else row["data"])
            for (key, index), row in run.rows.items()
            if key != "train/global_step" and not key.startswith("__swanlab__.")
        ]
        read[f"{run.state}#{number}"] = sorted(values, key=lambda v: v.step)
    return read


@contextmanager
def swanlab_folder(folder: Path, servers: Servers) -> Iterator[Case]:
    reader: SwanLabReader = servers.swanlab_reader

    def read() -> dict[str, list[Value]]:
        return {
            f"{run['state']}#{number}": [
                Value(step, key, value)
                for key, step, value, _ in run["scalars"]
                if key != "train/global_step"
            ]
            for number, run in enumerate(reader.runs(folder / "swanlog"))
        }

    yield Case(
        "SwanLabCallback",
        read,
        variables={"SWANLAB_MODE": "local"},
        loss="train/loss",
    )


@contextmanager
def dvclive(folder: Path, servers: Servers) -> Iterator[Case]:
    with studio_server(SECRET) as studio, fronting(studio.url) as front:
        yield Case(
            "DVCLiveCallback",
            lambda: dvclive_values(studio, folder / "live"),
            variables={
                "DVC_STUDIO_TOKEN": SECRET,
                "DVC_STUDIO_URL": front.url,
                "DVC_STUDIO_REPO_URL": "git@127.0.0.1:ada/proj.git",
            },
            arguments={"dir": "live"},
            front=front,
        )


def dvclive_values(studio: Studio, directory: Path) -> dict[str, list[Value]]:
    """Return what the tables have, which is what Studio must have, too, but for texts."""
    assert studio.problems == []
    read: dict[str, list[Value]] = {}
    for number, experiment in enumerate(studio.experiments.values()):
        found = tables(directory)
        assert numeric(studio_rows(experiment, directory.name)) == numeric(found)
        values = [Value(s, name, plain(v)) for name, rows in found.items() for s, v in rows]
        status = "finished" if experiment.done else "running"
        read[f"{status}#{number}"] = sorted(values, key=lambda v: v.step)
    assert read or not directory.exists()
    return read


@contextmanager
def codecarbon(folder: Path, servers: Servers) -> Iterator[Case]:
    table = folder / "carbon" / "emissions.csv"
    yield Case(
        "CodeCarbonCallback",
        lambda: {"finished": []} if table.exists() else {},
        variables={
            "CODECARBON_COUNTRY_ISO_CODE": "FRA",
            "CODECARBON_OUTPUT_DIR": str(table.parent),
        },
        keeps_logs=False,
    )


@contextmanager
def flyte(folder: Path, servers: Servers) -> Iterator[Case]:
    yield Case(
        "FlyteCallback",
        dict,
        variables={"FLYTE_INTERNAL_EXECUTION_ID": "run"},
        keeps_logs=False,
        works_alone=False,
    )


@contextmanager
def clearml(folder: Path, servers: Servers) -> Iterator[Case]:
    with clearml_server(servers.clearml_schema) as server, fronting(server.url) as front:
        server.secret = SECRET
        yield Case(
            "ClearMLCallback",
            lambda: clearml_values(server),
            variables={
                "CLEARML_API_HOST": front.url,
                "CLEARML_FILES_HOST": front.url,
                "CLEARML_API_ACCESS_KEY": ACCESS,
                "CLEARML_API_SECRET_KEY": SECRET,
            },
            front=front,
            finished="completed",
            loss="train/loss",
            replaces=True,
            single=frozenset({"train_loss"}),
        )


def clearml_values(server: ClearMLServer) -> dict[str, list[Value]]:
    """Return what each task has; what no chart takes, such as NaN, is a line of its console."""
    read: dict[str, list[Value]] = {}
    for number, task in enumerate(server.tasks.tasks.values()):
        values = [
            Value(
                0 if title == "Summary" else step,
                name if title == "Summary" else f"{title}/{name}",
                value,
            )
            for (title, name, step), value in task.scalars.items()
            if not title.startswith(":monitor:")
        ]
        for line in task.logs:
            name, _, rest = line["msg"].rpartition(" = ")
            values.append(Value(int(rest.rpartition(" ")[2]), name, None))
        read[f"{task.status}#{number}"] = sorted(values, key=lambda v: v.step)
    return read


CASES: dict[str, Open] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "mlflow database": mlflow_database,
    "mlflow folder": mlflow_folder,
    "azure_ml": azureml,
    "dagshub": dagshub,
    "dvclive": dvclive,
    "trackio": trackio,
    "trackio folder": trackio_folder,
    "wandb": wandb,
    "comet_ml": comet,
    "comet_ml archive": comet_archive,
    "clearml": clearml,
    "swanlab": swanlab,
    "swanlab folder": swanlab_folder,
    "codecarbon": codecarbon,
    "flyte": flyte,
}
"""The trackers by their names in `report_to`; a new one is an entry here."""

needs_flytekit = pytest.mark.skipif(
    find_spec("flytekit") is None, reason="flytekit 1.16 has no release for Python 3.13"
)
