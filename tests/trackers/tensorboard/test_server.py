"""What a real `tensorboard` shows, with both of its ways to load files."""

import math
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from asynccb.trackers.tensorboard import TensorBoardCallback
from tests.trackers.tensorboard.board import scalars, serving
from tests.trackers.tensorboard.event_files import Lane, describe, single, training

CONFUSABLE = [
    *("精度", "召回", "recall>0.5", "recall<0.5", "Loss", "loss ", " loss", "a.b", "a/b", "a\nb"),
    *("", "x/text_summary", "_hparams_/session_start_info", "args", "a" * 400),
]
"""Names that a reader could take for one another, or for tags of its own."""


async def write_runs(directory: Path) -> None:
    first = Lane(
        TensorBoardCallback(logging_dir=directory / "first"), describe(directory, fp16=True)
    )
    await first.deliver(training(0, 8))
    await first.deliver([("on_log", 8, {"eval_größe": math.nan})])
    await first.deliver(training(8, 12))
    await first.finish("finished")
    third = Lane(
        TensorBoardCallback(logging_dir=directory / "names", names="given"), describe(directory)
    )
    logs = {name: float(number) for number, name in enumerate(CONFUSABLE)}
    await third.deliver([("on_log", 1, {**logs, "x": "a text"})])
    await third.deliver([("on_log", 2, {"args": "another text"})])
    await third.finish("finished")
    second = Lane(TensorBoardCallback(logging_dir=directory / "second"), describe(directory, lr=2))
    await second.deliver(training(0, 2))
    await second.finish("failed")


@pytest.fixture(scope="module", params=["--load_fast=true", "--load_fast=false"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("board")
    anyio.run(write_runs, directory)
    with serving(directory, request.param, last="second") as client:
        yield client


def test_a_server_shows_every_step_of_a_resumed_run_once(server: httpx.Client) -> None:
    assert scalars(server, "first", "train/loss") == [
        (step, single(1 / step)) for step in range(1, 13)
    ]


def test_a_server_shows_unicode_tags_and_nan(server: httpx.Client) -> None:
    assert scalars(server, "first", "eval/größe") == [(8, "NaN")]


def test_a_server_shows_each_metric_under_a_tag_of_its_own_and_texts_beside_them(
    server: httpx.Client,
) -> None:
    tags = server.get("data/plugin/scalars/tags").json()["names"]
    found = {tag: scalars(server, "names", tag) for tag in tags}
    shown = {points[0][1]: tag for tag, points in found.items()}
    assert len(shown) == len(CONFUSABLE)
    changed = {"", "x/text_summary", "_hparams_/session_start_info"}
    for number, name in enumerate(CONFUSABLE):
        assert (shown[number] == name) == (name not in changed)
    texts = server.get("data/plugin/text/tags").json()["names"]
    assert "x/text_summary" in texts
    (own,) = (tag for tag in texts if tag.startswith("args_"))
    answer = server.get("data/plugin/text/text", params={"run": "names", "tag": own})
    assert "another text" in answer.raise_for_status().json()[0]["text"]


def test_a_server_shows_the_arguments_as_text(server: httpx.Client) -> None:
    answer = server.get(
        "data/plugin/text/text", params={"run": "second", "tag": "args/text_summary"}
    )
    assert "HUB_TOKEN" in answer.raise_for_status().json()[0]["text"]


def test_a_server_shows_hyper_parameters_metrics_and_how_runs_ended(server: httpx.Client) -> None:
    answer = server.post("data/plugin/hparams/experiment", json={"experimentName": ""})
    experiment = answer.raise_for_status().json()
    columns = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
    assert columns["fp16"] == "DATA_TYPE_BOOL"
    assert columns["lr"] == "DATA_TYPE_FLOAT64"
    metrics = [info["name"] for info in experiment["metricInfos"]]
    assert {"group": "", "tag": "train/loss"} in metrics

    answer = server.post(
        "data/plugin/hparams/session_groups",
        json={
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"],
            "colParams": [
                {"hparam": "lr", "includeInResult": True},
                {"metric": {"group": "", "tag": "train/loss"}, "includeInResult": True},
            ],
            "startIndex": 0,
            "sliceSize": 10,
        },
    )
    groups = answer.raise_for_status().json()["sessionGroups"]
    sessions = {session["name"]: session for group in groups for session in group["sessions"]}
    assert {name: session["status"] for name, session in sessions.items()} == {
        "first": "STATUS_SUCCESS",
        "second": "STATUS_FAILURE",
    }
    shown = {group["hparams"].get("lr"): group["metricValues"] for group in groups}
    losses = {
        lr: metric["value"]
        for lr, values in shown.items()
        for metric in values
        if metric["name"] == {"group": "", "tag": "train/loss"}
    }
    assert losses == {None: single(1 / 12), 2.0: 0.5}
