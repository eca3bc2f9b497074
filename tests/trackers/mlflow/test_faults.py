"""The MLflow tracker on a bad network, behind a login, and against servers that are none."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.mlflow import MLflowCallback
from tests.trackers.lane import description, play, training, until_done
from tests.trackers.mlflow.runs import deliver, expected, revived
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.scripted import Answer, CutError, Request, forward, in_turn, scripted

pytestmark = pytest.mark.usefixtures("mlflow_environment")

SECRET = "s3cr3t-value"


async def test_lost_answers_double_neither_experiment_nor_run_nor_points(
    mlflow_server: RealMLflow,
) -> None:
    lost: set[str] = set()

    async def lose_each_first_answer(request: Request) -> Answer:
        answer = await forward(mlflow_server.uri, request)
        path = request.target.partition("?")[0]
        if path not in lost:
            lost.add(path)
            raise CutError
        return answer

    records = training(30)
    async with scripted(lose_each_first_answer) as front:
        tracker = MLflowCallback(tracking_uri=front.url, experiment_name="lost answers")
        tracker.describe(description())
        await play(tracker, records)
        assert await until_done(tracker.flush) == len(lost) == 6
        run = await deliver(tracker, [])
        await until_done(lambda: tracker.finish("finished"))
        await tracker.close()
    assert len(mlflow_server.runs("lost answers")) == 1
    assert mlflow_server.points(run, "loss") == expected(records, "loss")
    assert mlflow_server.run(run)["info"]["status"] == "FINISHED"
    assert tracker.rejected == 0


async def test_two_processes_that_make_one_experiment_at_once_share_it(
    mlflow_server: RealMLflow,
) -> None:
    async def slower_than_another(request: Request) -> Answer:
        if request.target.endswith("experiments/create"):
            await forward(mlflow_server.uri, request)
        return await forward(mlflow_server.uri, request)

    async with scripted(slower_than_another) as front:
        tracker = MLflowCallback(tracking_uri=front.url, experiment_name="raced")
        tracker.describe(description())
        await deliver(tracker, training(1))
        await tracker.close()
    assert len(mlflow_server.runs("raced")) == 1


async def test_an_acknowledged_batch_is_not_sent_again_after_a_later_one_failed(
    mlflow_server: RealMLflow,
) -> None:
    sizes: list[int] = []

    async def busy_once(request: Request) -> Answer:
        if b'"metrics"' in request.body:
            sizes.append(len(json.loads(request.body)["metrics"]))
            if len(sizes) == 2:
                return Answer(503, b"busy", {"Retry-After": "1"})
        return await forward(mlflow_server.uri, request)

    async with scripted(busy_once) as front:
        tracker = MLflowCallback(tracking_uri=front.url, experiment_name="busy")
        tracker.describe(description())
        await play(tracker, training(1100))
        with pytest.raises(TransientError) as caught:
            await tracker.flush()
        assert caught.value.retry_after == 1.0
        await tracker.flush()
        await tracker.close()
    assert sizes == [1000, 1000, 1000, 200]


async def test_a_server_that_fails_over_the_state_for_ever_holds_up_no_metric_and_gets_the_end(
    mlflow_server: RealMLflow,
) -> None:
    async def fails_over_running(request: Request) -> Answer:
        if b'"status":"RUNNING"' in request.body or (failing and b'"status"' in request.body):
            return Answer(500, b"oops")
        return await forward(mlflow_server.uri, request)

    failing = False
    records = training(3)
    async with scripted(fails_over_running) as front:
        tracker = MLflowCallback(tracking_uri=front.url, experiment_name="state")
        tracker.describe(description())
        await tracker.on_train_begin(None, None, None)
        await play(tracker, records)
        assert await until_done(tracker.flush) == 2
        assert tracker.rejected == 1
        failing = True
        for _ in range(20):
            with pytest.raises(TransientError):
                await tracker.finish("finished")
        failing = False
        await tracker.finish("finished")
        await tracker.close()
    (run,) = mlflow_server.runs("state")
    assert run["info"]["status"] == "FINISHED"
    assert mlflow_server.points(run["info"]["run_id"], "loss") == expected(records, "loss")


async def refused(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Request:
    """Return the first request of a tracker with that environment; every trace is searched."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("SECRET", SECRET))
    async with scripted(in_turn(Answer(401, b"<html>no</html>"))) as server:
        if "MLFLOW_TRACKING_URI" in environ:
            address = server.url.replace("//", f"//ada:{SECRET}@")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            tracker = MLflowCallback()
        else:
            tracker = MLflowCallback(tracking_uri=server.url)
        tracker = revived(tracker.state(), description())
        await play(tracker, training(2))
        with pytest.raises(AccessError, match="MLFLOW_TRACKING_TOKEN") as caught:
            await tracker.flush()
        await tracker.close()
    traces = [repr(caught.value), repr(tracker), repr(vars(tracker)), json.dumps(tracker.state())]
    assert SECRET not in "".join(traces)
    return server.requests[0]


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("environ", "header"),
    [
        (
            {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "SECRETü"},
            basic("ada", f"{SECRET}ü"),
        ),
        ({"MLFLOW_TRACKING_TOKEN": "SECRET"}, f"Bearer {SECRET}"),
        (
            {
                "MLFLOW_TRACKING_USERNAME": "ada",
                "MLFLOW_TRACKING_PASSWORD": "SECRET",
                "MLFLOW_TRACKING_TOKEN": "other",
            },
            basic("ada", SECRET),
        ),
        ({"MLFLOW_TRACKING_URI": "with user and password"}, basic("ada", SECRET)),
    ],
)
async def test_credentials_are_sent_and_shown_nowhere(
    environ: dict[str, str],
    header: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "asynccb")
    request = await refused(environ, monkeypatch)
    assert request.headers["authorization"] == header
    assert SECRET not in caplog.text


def save_credentials(text: str) -> None:
    folder = Path(os.environ["HOME"]) / ".mlflow"
    folder.mkdir()
    (folder / "credentials").write_text(text)


async def test_the_credentials_file_fills_in_what_the_environment_leaves_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_credentials(
        f"[mlflow]\nmlflow_tracking_username = saved\nmlflow_tracking_password = %{SECRET}%(\n"
    )
    request = await refused({"MLFLOW_TRACKING_USERNAME": "ada"}, monkeypatch)
    assert request.headers["authorization"] == basic("ada", f"%{SECRET}%(")


async def test_a_broken_credentials_file_is_an_access_error_that_does_not_quote_it(
    mlflow_server: RealMLflow,
) -> None:
    save_credentials(f"mlflow_tracking_password {SECRET}")
    tracker = MLflowCallback(tracking_uri=mlflow_server.uri)
    tracker.describe(description())
    with pytest.raises(AccessError, match=r"~/\.mlflow/credentials") as caught:
        await deliver(tracker, training(1))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>Not Found</html>"),
        Answer(200, b"{}"),
        Answer(200, b"[]"),
        Answer(200, b'{"experiment": {"experiment_id": 1}}'),
        Answer(405, b""),
    ],
)
async def test_a_server_that_is_no_mlflow_server_is_an_access_error(answer: Answer) -> None:
    async with scripted(in_turn(answer)) as server:
        tracker = MLflowCallback(tracking_uri=server.url)
        tracker.describe(description())
        with pytest.raises(AccessError):
            await deliver(tracker, training(1))
        await tracker.close()


async def test_a_page_in_front_of_the_server_is_transient(mlflow_server: RealMLflow) -> None:
    pages = [Answer(200, b"<html>Please log in</html>")]

    async def behind_a_page(request: Request) -> Answer:
        return pages.pop() if pages else await forward(mlflow_server.uri, request)

    async with scripted(behind_a_page) as front:
        tracker = MLflowCallback(tracking_uri=front.url, experiment_name="page")
        tracker.describe(description())
        await play(tracker, training(1))
        with pytest.raises(TransientError, match="Please log in"):
            await tracker.flush()
        await tracker.flush()
        await tracker.close()
    assert len(mlflow_server.runs("page")) == 1


async def test_a_server_that_was_never_there_is_transient_and_nothing_is_lost(
    mlflow_server: RealMLflow,
) -> None:
    async with scripted(in_turn(Answer())) as server:
        gone = server.url
    tracker = MLflowCallback(tracking_uri=gone)
    tracker.describe(description())
    await play(tracker, training(3))
    for _ in range(3):
        with pytest.raises(TransientError):
            await tracker.flush()
    async with scripted(lambda request: forward(mlflow_server.uri, request)) as front:
        late = revived(
            MLflowCallback(tracking_uri=front.url, experiment_name="late").state(), tracker.run
        )
        late._mlflow._outbox = tracker._mlflow._outbox
        await late.flush()
        assert len(mlflow_server.runs("late")) == 1
        await late.close()
    await tracker.close()


def test_a_tracker_can_be_pickled_to_its_companion() -> None:
    tracker = MLflowCallback(tracking_uri="http://host", tags={"a": "b"})
    assert pickle.loads(pickle.dumps(tracker)).state() == tracker.state()


def test_importing_and_making_a_tracker_loads_neither_httpx_nor_torch() -> None:
    check = (
        "import sys; from asynccb.trackers.mlflow import MLflowCallback; "
        "MLflowCallback(tracking_uri='http://host'); print({'httpx', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
