"""The Trackio tracker against a real Trackio server, read back through its own interface."""

from __future__ import annotations

import base64
import json
import logging as log
import math
import random
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asynccb
from asynccb._ground.exceptions import AccessError, ConfigurationError, TransientError
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.trackio import TrackioCallback
from asynccb.trackers.trackio.settings import Inbox, Server, Space
from asynccb.trackers.trackio.values import metrics_of
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.support.waiting import eventually
from tests.trackers.front import fronting
from tests.trackers.lane import START, deliver, description, emitted, play, revived, training
from tests.trackers.scripted import Answer, CutError, Request, serving
from tests.trackers.trackio.server import WRITE_TOKEN, RealTrackio

Make = Callable[..., TrackioCallback]

CONTINUE = """
import sys
import trackio
url, project, name = sys.argv[1:]
run = trackio.init(project, name=name, server_url=url, resume="allow", embed=False,
                   auto_log_gpu=False, auto_log_cpu=False)
print(run.id)
"""
"""Go on with a run by the vendor's client, and print its id."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "TRACKIO", "HF_", "HUGGING")
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", WRITE_TOKEN)


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    return request.node.name.translate({ord(c): "-" for c in "[]_ "})[:80]


@pytest.fixture
async def make(trackio_server: RealTrackio, project: str) -> AsyncIterator[Make]:
    """Make trackers of the test's own project, and close them in the end."""
    made: list[TrackioCallback] = []

    def tracker(run: RunDescription | None = None, **settings: Any) -> TrackioCallback:
        given = {"server_url": trackio_server.url, "project": project}
        made.append(TrackioCallback(**{**given, **settings}))
        made[-1].describe(run or description())
        return made[-1]

    yield tracker
    for each in made:
        await each.close()


def only_run(server: RealTrackio, project: str) -> dict[str, Any]:
    (run,) = server.runs(project)
    return run


def losses(server: RealTrackio, project: str) -> list[tuple[int, float]]:
    rows = server.rows(project, only_run(server, project)["id"])
    return [(row["step"], row["train/loss"]) for row in rows]


async def test_a_run_has_its_name_configuration_and_grouped_metrics(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    run = description(run_name="first", hub_token="x", seed=7)
    tracker = make(run, group="sweep")
    logs = {"loss": 0.5, "eval_loss": 0.25, "note": "fine", "nested": {"a": {"b": 1.0}}}
    await deliver(tracker, [emitted("on_log", 3, logs=logs), *training(1, first=4)])
    await deliver(tracker, [emitted("on_predict", 4, metrics={"test_accuracy": 0.75})])
    found = only_run(trackio_server, project)
    assert found["name"] == "first"
    rows = trackio_server.rows(project, found["id"])
    assert {k: v for k, v in rows[0].items() if k != "timestamp"} == {
        "step": 3,
        "train/loss": 0.5,
        "eval/loss": 0.25,
        "train/note": "fine",
        "train/nested/a/b": 1.0,
    }
    assert (rows[2]["step"], rows[2]["test/accuracy"]) == (4, 0.75)
    config = trackio_server.config(project, found["id"])
    assert (config["seed"], config["hidden"], config["hub_token"]) == (7, 8, "<HUB_TOKEN>")
    assert (config["_Username"], config["_Group"]) == ("ada", "sweep")
    assert (config["learning_rate"], config["model/num_parameters"]) == (5e-4, 10)


async def test_metrics_named_like_credentials_are_no_credentials(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    await deliver(make(), [emitted("on_log", 1, logs={"loss_per_token": 2.0, "train_token": 3.0})])
    (row,) = trackio_server.rows(project, only_run(trackio_server, project)["id"])
    assert (row["train/loss_per_token"], row["train/train_token"]) == (2.0, 3.0)


@pytest.mark.parametrize("status", ["failed", "killed", "crashed"])
async def test_a_run_that_did_not_finish_has_one_alert_that_says_so(
    make: Make, trackio_server: RealTrackio, project: str, status: RunStatus
) -> None:
    tracker = make()
    await deliver(tracker, training(3))
    for _ in range(2):
        await tracker.finish(status)
    (alert,) = trackio_server.alerts(project, only_run(trackio_server, project)["id"])
    assert (alert["title"], alert["level"], alert["step"]) == (f"Run {status}", "error", 3)


async def test_a_run_of_the_same_name_goes_on_and_keeps_its_configuration(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    await deliver(make(description(run_name="again", seed=1)), training(3))
    await deliver(make(description(run_name="again", seed=1)), training(3, first=4))
    run = only_run(trackio_server, project)
    assert [step for step, _ in losses(trackio_server, project)] == [1, 2, 3, 4, 5, 6]
    assert trackio_server.config(project, run["id"])["seed"] == 1


async def test_of_two_runs_of_one_name_the_newest_goes_on_as_with_trackio_s_own_client(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    for first in (1, 10, 20):
        tracker = make(description(run_name="again"), resume="never")
        await deliver(tracker, training(2, first=first))
    await deliver(make(description(run_name="again")), training(1, first=30))
    runs = sorted(trackio_server.runs(project), key=lambda run: run["created_at"])
    steps = [[row["step"] for row in trackio_server.rows(project, run["id"])] for run in runs]
    assert steps == [[1, 2], [10, 11], [20, 21, 30]]
    command = [sys.executable, "-c", CONTINUE, trackio_server.url, project, "again"]
    own = await anyio.run_process(command)
    assert own.stdout.decode().split()[-1] == runs[-1]["id"]


async def test_a_run_whose_rows_are_there_goes_on_though_a_newer_one_has_its_name(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    first = make(description(run_name="again"))
    never = first.state()
    await deliver(first, training(2))
    await deliver(make(description(run_name="again"), resume="never"), training(1, first=9))
    again = revived(first, never)
    await deliver(again, training(3))
    await again.close()
    runs = sorted(trackio_server.runs(project), key=lambda run: run["created_at"])
    steps = [[row["step"] for row in trackio_server.rows(project, run["id"])] for run in runs]
    assert steps == [[1, 2, 3], [9]]


async def test_a_resumed_training_goes_on_with_the_run_and_its_rows_unless_sent_elsewhere(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    first = make()
    await deliver(first, training(5))
    await first.finish("crashed")
    attributes = json.loads(json.dumps(first.state()["attributes"]))
    again = TrackioCallback(server_url=trackio_server.url, project=project)
    assert again.resume(attributes)
    again.describe(first.run)
    await deliver(again, training(3, first=6))
    await again.close()
    assert [step for step, _ in losses(trackio_server, project)] == list(range(1, 9))
    elsewhere = TrackioCallback(server_url=trackio_server.url, project="another")
    assert not elsewhere.resume(attributes)


async def test_runs_without_a_name_or_that_never_go_on_are_runs_of_their_own(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    for _ in range(2):
        await deliver(make(), training(1))
        await deliver(make(description(run_name="same"), resume="never"), training(1))
    runs = trackio_server.runs(project)
    assert len({run["id"] for run in runs}) == 4
    assert [run["name"] for run in runs].count("same") == 2


async def test_a_trial_gives_its_name_to_the_run(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    tracker = make(description(run_name="search"))
    tracker.time = START
    state = asynccb.TrainerState(global_step=1, trial_name="trial-3")
    await tracker.on_log(None, state, None, logs={"loss": 1.0})
    await tracker.flush()
    assert only_run(trackio_server, project)["name"] == "trial-3"


def test_a_checkpoint_is_a_version_of_the_model_with_its_files(
    trackio_server: RealTrackio, project: str, tmp_path: Path
) -> None:
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path / "out"), run_name="a b", project=project
    )
    weights = {5: random.Random(5).randbytes(3 << 20), 10: b"small"}
    tracker = TrackioCallback(server_url=trackio_server.url, log_model="checkpoint")
    with running(tracker, args=args, directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step, content in weights.items():
            run.state.global_step = step
            run.emit("on_log", logs={"loss": 1.0})
            folder = tmp_path / "out" / f"checkpoint-{step}" / "sub"
            folder.mkdir(parents=True)
            (folder / "weights").write_bytes(content)
            (folder.parent / "same").write_bytes(b"same")
            (folder.parent / "empty").write_bytes(b"")
            run.emit("on_save")
        run.emit("on_train_end")
        assert run.flush(60)
        run.close(timeout=60.0)
        (counts,) = run.statistics().callbacks.values()
    assert (counts.rejected, counts.failed) == (0, 0)
    (artifact,) = trackio_server.call("list_artifacts", project=project)
    assert artifact["name"] == "model-a-b"
    for step, content in weights.items():
        found = trackio_server.call(
            "get_artifact_manifest", project=project, name="model-a-b", spec=f"checkpoint-{step}"
        )
        assert found["metadata"]["global_step"] == step
        files = {entry["path"]: entry for entry in found["manifest"]}
        assert sorted(files) == ["empty", "same", "sub/weights"]
        digest = files["sub/weights"]["digest"]
        blob = next(trackio_server.folder.glob(f"artifacts/*/blobs/sha256/*/{digest}"))
        assert blob.read_bytes() == content


def test_the_best_checkpoint_is_the_final_model(
    trackio_server: RealTrackio, project: str, tmp_path: Path
) -> None:
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path), run_name="best", project=project, load_best_model_at_end=True,
        eval_strategy="steps", save_strategy="steps", eval_steps=5, save_steps=5,
    )  # fmt: skip
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text(str(step))
    tracker = TrackioCallback(server_url=trackio_server.url, log_model="end")
    with running(tracker, args=args, directory=tmp_path / "runs") as run:
        run.emit("on_log", logs={"loss": 1.0})
        run.state.best_model_checkpoint = str(tmp_path / "checkpoint-5")
        run.state.global_step = 10
        run.emit("on_train_end")
        run.close(timeout=60.0)
    spec = {"project": project, "name": "model-best", "spec": "final_model"}
    (entry,) = trackio_server.call("get_artifact_manifest", **spec)["manifest"]
    blob = next(trackio_server.folder.glob(f"artifacts/*/blobs/sha256/*/{entry['digest']}"))
    assert blob.read_text() == "5"


async def test_a_wrong_token_ends_the_tracker_and_says_what_to_set(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", "wrong")
    tracker = make()
    await play(tracker, training(2))
    with pytest.raises(AccessError, match="set TRACKIO_WRITE_TOKEN"):
        await tracker.flush()
    assert tracker.rejected == 0


async def test_a_token_of_the_variables_address_is_sent_there_alone(
    trackio_server: RealTrackio, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    monkeypatch.delenv("TRACKIO_WRITE_TOKEN")
    monkeypatch.setenv("TRACKIO_SERVER_URL", f"{trackio_server.url}/?write_token={WRITE_TOKEN}")
    tracker = TrackioCallback(project=project)
    assert WRITE_TOKEN not in json.dumps(tracker.state())
    tracker.describe(description())
    await deliver(tracker, training(2))
    await tracker.close()
    assert len(losses(trackio_server, project)) == 2
    with fronting(trackio_server.url) as front:
        elsewhere = TrackioCallback(project=project, server_url=front.url)
        elsewhere.describe(description())
        await play(elsewhere, training(1))
        with pytest.raises(AccessError):
            await elsewhere.flush()
        await elsewhere.close()
        assert WRITE_TOKEN not in "".join(str(r.headers) for r in front.requests)


async def test_a_server_of_another_version_or_none_at_all_is_an_access_error() -> None:
    for answer in (Answer(404), Answer(200, b'{"version": "9", "api_version": 2}'), Answer()):

        async def script(request: Request, answer: Answer = answer) -> Answer:
            return answer

        with serving(script) as server:
            tracker = TrackioCallback(server_url=server.url)
            tracker.describe(description())
            await play(tracker, training(1))
            with pytest.raises(AccessError, match="Trackio"):
                await tracker.flush()
            await tracker.close()


async def test_a_run_in_a_space_goes_to_where_the_hub_says_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "space").mkdir()
    server = RealTrackio(
        tmp_path / "space",
        SYSTEM="spaces",
        HF_TOKEN="hf_of_the_space",
        SPACE_AUTHOR_NAME="ada",
        SPACE_REPO_NAME="board",
    )
    stages = ["BUILDING", "RUNNING"]
    asked: list[Request] = []

    async def hub(request: Request) -> Answer:
        asked.append(request)
        if request.headers.get("authorization") != "Bearer hf_of_the_space":
            return Answer(401, b'{"error": "Invalid credentials"}')
        if request.target == "/api/whoami-v2":
            return Answer(200, b'{"name": "ada", "type": "user"}')
        if request.target != "/api/spaces/ada/board":
            return Answer(404, b'{"error": "Repository not found"}')
        stage = stages.pop(0) if len(stages) > 1 else stages[0]
        space = {
            "id": "ada/board",
            "sdk": "gradio",
            "host": server.url,
            "runtime": {"stage": stage},
        }
        return Answer(200, json.dumps(space).encode())

    server.start()
    try:
        with serving(hub) as hub_server:
            monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
            monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
            (tmp_path / "home").mkdir()
            (tmp_path / "home" / "token").write_text("hf_of_the_space\n")
            tracker = TrackioCallback(project="spaced")
            tracker.describe(description(trackio_space_id="board"))
            await play(tracker, training(5))
            with pytest.raises(TransientError, match="BUILDING"):
                await tracker.flush()
            await tracker.flush()
            await tracker.close()
            assert losses(server, "spaced") == [(step, 1 / step) for step in range(1, 6)]
    finally:
        server.close()


@pytest.mark.parametrize(("copy", "said"), [("ada/copy", 1), (None, 0), (False, 0)])
async def test_a_static_copy_that_the_arguments_name_is_said_once_not_to_be_made(
    trackio_server: RealTrackio,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    copy: str | bool | None,
    said: int,
) -> None:
    async def hub(request: Request) -> Answer:
        running = {"host": trackio_server.url, "runtime": {"stage": "RUNNING"}}
        return Answer(200, json.dumps({"id": "ada/board", "sdk": "gradio", **running}).encode())

    with serving(hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_ada")
        tracker = TrackioCallback(project=project)
        run = description(trackio_space_id="ada/board", trackio_static_space_id=copy)
        tracker.describe(run)
        await play(tracker, training(1))
        await tracker.ready()
        await tracker.ready()
        await tracker.close()
    assert caplog.text.count("the static Space 'ada/copy' is not made") == said
    asked = "`trackio freeze --space-id ada/board --project "
    assert caplog.text.count(asked) == said


def test_the_training_arguments_name_project_and_bucket() -> None:
    args = asynccb.TrainingArguments(project="mine", trackio_bucket_id="ada/bucket")
    settings = TrackioCallback().settings
    assert settings.project_of(args) == "mine"
    assert settings.project_of(asynccb.TrainingArguments()) == "huggingface"
    assert settings.bucket_of(args) == "ada/bucket"
    assert TrackioCallback(project="given").settings.project_of(args) == "given"


async def test_a_space_that_is_not_there_is_made_as_the_vendors_client_makes_it(
    trackio_server: RealTrackio, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    spaces: dict[str, dict[str, Any]] = {}
    asked: list[tuple[str, str, Any]] = []

    async def hub(request: Request) -> Answer:
        """Keep Spaces; drop the connection once behind each request, so that it comes again."""
        path = request.target
        if request.method == "GET":
            space = spaces.get(path)
            return Answer(404) if space is None else Answer(200, json.dumps(space).encode())
        lines = [json.loads(line) for line in request.body.splitlines()]
        asked.append((request.method, path, lines if len(lines) > 1 else lines[0]))
        if path == "/api/repos/create":
            if "/api/spaces/ada/board" in spaces:
                return Answer(409, b'{"error": "You already created this space repo"}')
            about = {"id": "ada/board", "sdk": "gradio", "runtime": {"stage": "NO_APP_FILE"}}
            spaces["/api/spaces/ada/board"] = about
            raise CutError
        if path == "/api/spaces/ada/board/commit/main":
            running = {"host": trackio_server.url, "runtime": {"stage": "RUNNING"}}
            spaces["/api/spaces/ada/board"].update(running)
        return Answer(200, b"{}")

    with serving(hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_ada")
        tracker = TrackioCallback(space_id="ada/board", project=project)
        tracker.describe(description(hub_private_repo=True))
        await play(tracker, training(1))
        for _ in range(2):  # the lost answer, then being built
            with pytest.raises(TransientError):
                await tracker.flush()
        await tracker.close()
    place = {"name": "board", "organization": "ada", "type": "space", "sdk": "gradio"}
    private = {"visibility": "private"}
    volume = {"type": "bucket", "source": "ada/board-bucket", "mountPath": "/data"}
    commit = asked.pop(3)
    assert asked == [
        ("POST", "/api/repos/create", {**place, **private}),
        ("POST", "/api/repos/create", {**place, **private}),
        ("POST", "/api/buckets/ada/board-bucket", private),
        ("PUT", "/api/spaces/ada/board/volumes", {"volumes": [volume]}),
        (
            "POST",
            "/api/spaces/ada/board/variables",
            {"key": "TRACKIO_DIR", "value": "/data/trackio"},
        ),
        (
            "POST",
            "/api/spaces/ada/board/variables",
            {"key": "TRACKIO_BUCKET_ID", "value": "ada/board-bucket"},
        ),
    ]
    assert commit[1] == "/api/spaces/ada/board/commit/main"
    assert [line["key"] for line in commit[2]] == ["header", "file", "file", "file"]
    files = {line["value"]["path"]: line["value"] for line in commit[2][1:]}
    assert sorted(files) == ["README.md", "app.py", "requirements.txt"]
    assert b"trackio.show()" in base64.b64decode(files["app.py"]["content"])
    assert "hf_of_ada" not in str(asked)


def test_a_space_wins_over_a_server_and_both_over_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def destination(**given: Any) -> object:
        args = given.pop("args", {})
        return TrackioCallback(**given).settings.destination(description(**args).args)

    assert destination() == Inbox(str(tmp_path / ".cache/huggingface/trackio"))
    monkeypatch.setenv("TRACKIO_DIR", "somewhere")
    assert destination() == Inbox(str(Path.cwd() / "somewhere"))
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://host:1/x/?write_token=t")
    assert destination() == Server("http://host:1/x")
    assert destination(args={"trackio_space_id": "a/b"}) == Space("a/b")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "c/d")
    assert destination() == Space("c/d")
    assert destination(server_url="http://other") == Server("http://other")
    assert destination(space_id="e/f", server_url="http://other") == Space("e/f")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"space_id": "a/b/c"}, "'a/b/c'"),
        ({"bucket_id": "b"}, "'b'"),
        ({"private": "yes"}, "True or False"),
        ({"server_url": "127.0.0.1:7860"}, "http://127.0.0.1:7860"),
        ({"server_url": "http://host/?write_token=x"}, "TRACKIO_WRITE_TOKEN"),
        ({"log_model": "yes"}, "'end', 'checkpoint' or 'false'"),
        ({"resume": "must"}, "'allow' or 'never'"),
        ({"gpu_log_interval": 0}, "from 1 on"),
        ({"auto_log_gpu": "no"}, "True or False"),
        ({"project": ""}, "not empty"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TrackioCallback(**given)


async def test_the_folder_keeps_the_time_of_each_row_and_takes_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(log.INFO, "asynccb")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    tracker = TrackioCallback(project="local")
    tracker.describe(description(run_name="here"))
    records = training(10)
    await deliver(tracker, records[:5])
    half = tracker.state()
    await deliver(tracker, records[5:])
    await deliver(revived(tracker, half), records[5:])
    assert "trackio show --project local" in caplog.text
    assert tracker.address == str(tmp_path / "trackio")
    server = RealTrackio(tmp_path / "trackio")
    server.start()
    try:
        eventually(lambda: not list(tmp_path.glob("trackio/inbox/*/*")))
        rows = server.rows("local", only_run(server, "local")["id"])
    finally:
        server.close()
    assert [row["step"] for row in rows] == list(range(1, 11))
    times = [datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows]
    assert times == pytest.approx([record.time / 1e9 for record in records[1:]], abs=1e-5)


def system_rows(server: RealTrackio, project: str) -> list[dict[str, Any]]:
    runs = server.runs(project)
    if not runs:
        return []
    return server.call("get_system_logs", project=project, run=None, run_id=runs[0]["id"])


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("visible", "used"), [(None, [1.0, 2.0]), ("GPU-b", [2.0]), ("1,0", [2, 1])]
)
def test_memory_and_power_of_the_gpus_that_the_training_sees_are_system_metrics(
    trackio_server: RealTrackio,
    project: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    used: list[float],
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    tracker = TrackioCallback(server_url=trackio_server.url, project=project, gpu_log_interval=1.0)
    with running(tracker, directory=tmp_path / "runs") as run:
        run.emit("on_log", logs={"loss": 1.0})
        rows = eventually(lambda: system_rows(trackio_server, project))
    found = {k: v for k, v in rows[0].items() if k.startswith("gpu/")}
    assert [found[f"gpu/{n}/allocated_memory"] for n in range(len(used))] == used
    assert found["gpu/0/power"] == 350.5
    assert found["gpu/0/total_memory"] == 80.0
    assert (found["gpu/0/utilization"], found["gpu/0/temp"]) == (97.0, 61)
    assert found["gpu/total_power"] == 350.5 * len(used)
    assert f"gpu/{len(used)}/power" not in found
    assert "gpu/0/power_limit" not in found


async def test_a_machine_without_gpus_has_no_system_metrics(
    make: Make, trackio_server: RealTrackio, project: str
) -> None:
    tracker = make()
    await deliver(tracker, training(1))
    await tracker.heartbeat()
    assert tracker.beat is None
    assert system_rows(trackio_server, project) == []


def test_twenty_thousand_steps_in_ten_seconds_arrive_in_order_in_few_requests(
    trackio_server: RealTrackio, project: str, tmp_path: Path
) -> None:
    with fronting(trackio_server.url) as front:
        tracker = TrackioCallback(server_url=front.url, project=project)
        with running(tracker, directory=tmp_path / "runs") as run:
            run.emit("on_train_begin")
            for step in range(1, 20_001):
                run.step(logs={"loss": 1 / step, "learning_rate": 0.1})
            assert run.flush(120)
        sent = [r for r in front.requests if r.target == "/api/bulk_log"]
    assert losses_of_all(trackio_server, project) == [(n, 1 / n) for n in range(1, 20_001)]
    assert len(sent) <= 60  # two a second, as the vendor's client, and 1,000 rows in one
    assert max(len(json.loads(r.body)["logs"]) for r in sent) <= 1000


def losses_of_all(server: RealTrackio, project: str) -> list[tuple[int, float]]:
    values = server.call(
        "get_metric_values",
        project=project,
        run=None,
        run_id=only_run(server, project)["id"],
        metric_name="train/loss",
    )
    return [(value["step"], value["value"]) for value in values]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(logs=st.dictionaries(st.text(), VALUES, max_size=5))
def test_any_logs_become_rows_of_strict_json_and_what_is_left_out_is_named(
    logs: dict[str, Any],
) -> None:
    metrics, dropped = metrics_of(logs)
    json.loads(msgspec.json.encode(metrics))
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    assert set(metrics) | set(dropped) == set(logs)


def test_nan_comes_back_as_nothing_and_its_neighbours_as_they_were() -> None:
    metrics, dropped = metrics_of({"a": math.nan, "b": math.inf, "c": [1], "d": None, "e": True})
    assert metrics == {"a": "NaN", "b": "Infinity", "e": 1.0}
    assert dropped == ["c", "d"]
