"""What the SwanLab tracker tells a server, and what it does when that is refused."""

from __future__ import annotations

import logging
import math
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.exceptions import AccessError, FaultError, TransientError
from asynccb._ground.types import RunStatus
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.swanlab import api as swanlab_rest
from asynccb.trackers.swanlab import files as swanlab_files
from asynccb.trackers.swanlab import outbox as swanlab_cloud
from asynccb.trackers.swanlab.values import key_of, moment, named, sample_key
from tests.trackers.lane import (
    START,
    deliver,
    description,
    emitted,
    play,
    revived,
    training,
    until_done,
)
from tests.trackers.scripted import Request
from tests.trackers.swanlab.runs import kept, tracker
from tests.trackers.swanlab.server import _KEY, Fault, SwanLabServer


def asked(swanlab: SwanLabServer, path: str) -> list[Request]:
    return [request for request in swanlab.requests if request.target.endswith(path)]


def failing(path: str, *faults: Fault) -> Any:
    """Return what misbehaves with the first requests to a path."""
    left = list(faults)
    return lambda r: left.pop(0) if left and r.target.endswith(path) else None


# -- names and values ------------------------------------------------------------------------------


def test_names_are_those_of_transformers() -> None:
    logs = {"loss": 1, "eval_loss": 2, "test_f1": 3, "train_loss": 4, "total_flos": 5}
    curves = CurveNames("SwanLab", key_of)
    assert named(curves.apart({**logs, "a": {"b": 6}}), curves, "grouped") == {
        "single_value/train_loss": 4,
        "single_value/total_flos": 5,
        "train/loss": 1,
        "eval/loss": 2,
        "test/f1": 3,
        "train/a/b": 6,
    }


@given(st.text(max_size=600))
def test_every_name_becomes_a_key_that_the_vendor_takes(name: str) -> None:
    key = key_of(f"train/{name}")
    assert _KEY.fullmatch(key)
    assert len(key) <= 512
    assert key_of(key) == key


@given(st.lists(st.text(alphabet="a./\n", max_size=4), unique=True))
def test_names_that_differ_stay_apart(names: list[str]) -> None:
    assert len({key_of(name) for name in names}) == len(names)


def test_times_are_those_of_the_records_to_the_microsecond() -> None:
    assert moment(START + 1_500_000) == "2026-11-18T11:06:40.001500Z"


async def test_numbers_are_under_their_step_and_what_is_not_finite_is_nan(
    swanlab: SwanLabServer,
) -> None:
    made = tracker()
    logs = {"loss": math.nan, "up": math.inf, "flag": True, "word": "x", "eval_loss": 2.5}
    await deliver(made, [emitted("on_log", 7, logs=logs)])
    await deliver(made, [emitted("on_predict", 7, metrics={"test_loss": 1})])
    run = swanlab.run()
    assert {key: row["data"] for (key, _), row in run.rows.items()} == {
        "train/loss": "nan",
        "train/up": "nan",
        "train/flag": 1.0,
        "eval/loss": 2.5,
        "train/global_step": 7.0,
        "test/loss": 1.0,
    }
    assert {index for _, index in run.rows} == {7}
    assert made.rejected == 1
    assert run.columns["eval/loss"] == {
        "key": "eval/loss", "type": "FLOAT", "sectionName": "eval",
    }  # fmt: skip
    await made.close()


async def test_the_configuration_is_that_of_transformers_without_secrets(
    swanlab: SwanLabServer,
) -> None:
    run = description(run_name="mine", hub_token="hf_secret", seed=3)
    assert run.model is not None
    run = replace(run, model=replace(run.model, peft_config={"r": 8}))
    made = tracker(run)
    await deliver(made, training(1))
    config = swanlab.run().config
    assert config["FRAMEWORK"] == "\N{HUGGING FACE}transformers"
    assert (config["seed"], config["hidden"], config["learning_rate"]) == (3, 8, 5e-4)
    assert config["hub_token"] == "<HUB_TOKEN>"
    assert config["peft_config"] == {"r": 8}
    counts = ("model_num_parameters", "peft_model_trainable_params", "peft_model_all_param")
    assert [config[name] for name in counts] == [10, 8, 10]
    places = [one["sort"] for one in swanlab.run().profile["config"].values()]
    assert places == list(range(len(config)))
    assert swanlab.run().about["name"] == "mine"
    await made.close()


async def test_the_configuration_is_sent_again_when_the_run_is_described_anew(
    swanlab: SwanLabServer,
) -> None:
    run = description(seed=1)
    made = tracker(run)
    await deliver(made, training(2))
    await deliver(made, training(2, first=3))
    assert len(asked(swanlab, "/profile")) == 2  # metadata and configuration
    made.describe(replace(run, args=description(seed=2).args))
    await deliver(made, training(2, first=5))
    assert swanlab.run().config["seed"] == 2
    await made.close()


async def test_a_search_s_trial_is_in_the_name_of_its_run(swanlab: SwanLabServer) -> None:
    from asynccb._state.control import TrainerControl
    from asynccb._state.trainer_state import TrainerState

    made = tracker(description(run_name="search"))
    state = TrainerState(global_step=1, trial_name="trial-4")
    made.time = START
    await made.on_log(made.run.args, state, TrainerControl(), logs={"loss": 1.0})
    await made.flush()
    assert swanlab.run().about["name"] == "search-trial-4"
    await made.close()


# -- the run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("finished", "FINISHED"),
        ("failed", "CRASHED"),
        ("crashed", "CRASHED"),
        ("killed", "ABORTED"),
    ],
)
async def test_a_run_ends_as_the_training_did_and_a_bad_end_is_a_line(
    swanlab: SwanLabServer, status: RunStatus, state: str
) -> None:
    made = tracker()
    await deliver(made, training(2))
    made.time = emitted("end", 3).time
    swanlab.faults = failing("/state", Fault(obeys=True))
    assert await until_done(lambda: made.finish(status)) == 1
    await made.finish(status)
    run = swanlab.run()
    assert run.state == state
    lines = [] if status == "finished" else [f"The training ended as {status}."]
    assert [line["message"] for line in run.lines.values()] == lines
    assert len(asked(swanlab, "/state")) == 2
    await made.close()


async def test_columns_are_declared_once_before_their_rows_and_in_portions(
    swanlab: SwanLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swanlab_cloud, "COLUMNS", 2)
    made = tracker()
    logs = dict.fromkeys("abcde", 1.0)
    await deliver(made, [emitted("on_log", 1, logs=logs)])
    await deliver(made, [emitted("on_log", 2, logs={**logs, "f": 1.0})])
    assert len(asked(swanlab, "/series")) == 4
    assert (swanlab.run().early, swanlab.problems) == (set(), [])
    again = revived(made, made.state())
    await deliver(again, [emitted("on_log", 3, logs=logs)])
    assert len(asked(swanlab, "/series")) == 4  # the server says which it has
    await again.close()
    await made.close()


async def test_a_project_without_views_takes_columns_its_own_way(swanlab: SwanLabServer) -> None:
    swanlab.legacy = True
    made = tracker()
    await deliver(made, training(3))
    assert swanlab.run().values("train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert (swanlab.problems, swanlab.run().early) == ([], set())
    assert asked(swanlab, "/columns")
    await made.close()


async def test_a_run_that_must_be_there_and_is_not_ends_the_tracker(
    swanlab: SwanLabServer,
) -> None:
    made = tracker(run_id="nowhere", resume="must")
    await play(made, training(1))
    with pytest.raises(AccessError, match="alice/proj/nowhere is not there, and resume is 'must'"):
        await made.flush()
    assert swanlab.runs == {}
    await made.close()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_run_that_somebody_deletes_is_not_made_again(
    swanlab: SwanLabServer, restarted: bool
) -> None:
    made = tracker()
    await deliver(made, training(2))
    swanlab.runs.clear()
    again = revived(made, made.state()) if restarted else made
    await play(again, training(2, first=3))
    with pytest.raises(AccessError, match="is gone"):
        await again.flush()
    assert swanlab.runs == {}
    await again.close()
    await made.close()


async def test_a_heartbeat_is_sent_at_once_and_then_every_ten_minutes(
    swanlab: SwanLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracker(system_metrics=False)
    await made.heartbeat()
    assert swanlab.requests == []
    await deliver(made, training(1))
    assert (made.beat, swanlab.run().beats) == (600.0, 1)
    monkeypatch.setattr(swanlab_cloud, "BEAT", 0.0)  # as if they were over
    await made.heartbeat()
    assert swanlab.run().beats == 2
    await made.close()


async def test_a_server_without_heartbeats_is_logged_to_all_the_same(
    swanlab: SwanLabServer,
) -> None:
    swanlab.faults = lambda r: Fault(404) if r.target.endswith("/heartbeat") else None
    made = tracker()
    await deliver(made, training(2))
    assert len(swanlab.run().values("train/loss")) == 2
    await made.close()


async def test_lines_of_the_console_are_numbered_behind_those_that_were_there(
    swanlab: SwanLabServer,
) -> None:
    made = tracker(run_id="r")
    made.time = START
    await made.told("console", {"lines": [[False, START, "one"], [True, START, "x" * 2000]]}, 0)
    await made.flush()
    other = tracker(run_id="r")
    await other.told("console", {"lines": [[False, START, "three"]]}, 0)
    swanlab.faults = failing("/house/metrics", Fault(obeys=True))
    assert await until_done(other.flush) == 1
    again = revived(other, other.state())
    again.time = START
    await again.finish("failed")
    lines = {number: line["message"] for number, line in swanlab.run().lines.items()}
    ends = "The training ended as failed."
    assert lines == {1: "one", 2: "x" * 1024, 3: "three", 4: ends}
    for one in (made, other, again):
        await one.close()


def test_samples_have_the_names_of_the_vendors_monitor() -> None:
    assert sample_key("proc.cpu.threads") == "__swanlab__.cpu.thds"
    assert sample_key("gpu.1.memoryAllocated") == "__swanlab__.gpu.1.mem.pct"
    assert sample_key("gpu.0.powerWatts") == "__swanlab__.gpu.0.power"
    assert sample_key("gpu.0.enforcedPowerLimitWatts") is None


async def test_what_the_machine_does_is_sampled_while_the_training_lives(
    swanlab: SwanLabServer,
) -> None:
    live = replace(description(), host=socket.gethostname(), pid=os.getppid())
    made = tracker(live, system_metrics=5)
    assert made.beat == 5.0
    await deliver(made, training(1))
    await made.heartbeat()
    await made.heartbeat()
    run = swanlab.run()
    assert run.beats == 1  # the samples say that the run lives, and ten minutes are not over
    keys = {key.removeprefix("__swanlab__."): key for key in run.columns if "__swanlab__" in key}
    assert keys.keys() >= {"cpu.thds", "mem.pct", "mem.proc", "mem.proc.pct", "mem.proc.avail"}
    assert {run.columns[key]["type"] for key in keys.values()} == {"SYSTEM"}
    assert [step for step, _ in run.values("__swanlab__.mem.pct")] == [0, 1]
    again = revived(made, made.state())
    await deliver(again, training(1, first=2))
    await again.heartbeat()
    assert [step for step, _ in run.values("__swanlab__.mem.pct")] == [0, 1, 2]
    assert (swanlab.problems, run.changed, run.early) == ([], [], set())
    await again.close()
    await made.close()


# -- sessions and refusals -------------------------------------------------------------------------


async def test_a_session_that_ends_soon_is_renewed_and_one_that_is_gone_as_well(
    swanlab: SwanLabServer,
) -> None:
    made = tracker()
    swanlab.expires = "2001-01-01T00:00:00.000Z"
    await deliver(made, training(1))
    before = swanlab.logins
    swanlab.expires = "2099-01-01T00:00:00.000Z"
    await deliver(made, training(1, first=2))
    await deliver(made, training(1, first=3))
    assert swanlab.logins == before + 1
    swanlab.sessions.clear()
    await deliver(made, training(1, first=4))
    assert swanlab.logins == before + 2
    assert [step for step, _ in swanlab.run().values("train/loss")] == [1, 2, 3, 4]
    await made.close()


async def test_a_key_that_is_refused_ends_the_tracker_and_is_not_quoted(
    swanlab: SwanLabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "another-key-1234567890")
    made = tracker()
    await play(made, training(1))
    with pytest.raises(AccessError, match="SWANLAB_API_KEY") as caught:
        await made.flush()
    assert "another-key" not in str(caught.value)
    await made.close()


async def test_what_the_vendors_client_drops_is_waited_for(swanlab: SwanLabServer) -> None:
    made = tracker()
    await deliver(made, training(2))
    await play(made, training(3, first=3))
    swanlab.faults = failing(
        "/house/metrics", Fault(429, {"Retry-After": "0"}), Fault(408), Fault(), Fault(obeys=True)
    )
    assert await until_done(made.flush) == 4
    run = swanlab.run()
    assert [step for step, _ in run.values("train/loss")] == [1, 2, 3, 4, 5]
    assert (run.changed, made.rejected) == ([], 0)
    assert run.resent == 9  # the answer was lost once
    await made.close()


@pytest.mark.parametrize("path", ["/house/metrics", "/series", "/profile", "/state"])
async def test_a_page_of_something_between_acknowledges_nothing(
    swanlab: SwanLabServer, path: str
) -> None:
    swanlab.faults = failing(path, Fault(200, body=b"<html>log in</html>"))
    made = tracker()
    await play(made, training(2))
    failures = await until_done(made.flush) + await until_done(lambda: made.finish("finished"))
    run = swanlab.run()
    assert failures == 1
    assert run.values("train/loss") == [(1, 1.0), (2, 0.5)]
    assert {"train/loss", "train/learning_rate"} <= set(run.columns)
    assert run.config
    assert run.state == "FINISHED"
    await made.close()


async def test_a_server_that_says_nothing_but_success_has_taken_it(swanlab: SwanLabServer) -> None:
    swanlab.faults = failing("/house/metrics", Fault(202, body=b""))
    made = tracker()
    await play(made, training(1))
    assert await until_done(made.flush) == 0
    await made.close()


async def test_a_server_that_says_how_long_to_wait_is_not_asked_before(
    swanlab: SwanLabServer,
) -> None:
    made = tracker()
    await play(made, training(1))
    swanlab.faults = failing("/house/metrics", Fault(429, {"Retry-After": "7"}))
    with pytest.raises(TransientError) as caught:
        await made.flush()
    assert caught.value.retry_after == 7.0
    await made.close()


async def test_a_row_that_is_refused_is_set_aside_alone(
    swanlab: SwanLabServer, caplog: pytest.LogCaptureFixture
) -> None:
    swanlab.faults = lambda r: Fault(422) if b'"train/loss","index":3' in r.body else None
    made = tracker()
    await deliver(made, training(5))
    run = swanlab.run()
    assert [step for step, _ in run.values("train/loss")] == [1, 2, 4, 5]
    assert len(run.values("train/learning_rate")) == 5
    assert made.rejected == 1
    (refusal,) = made.take_refusals()
    assert (refusal.record.key, refusal.record.index) == ("train/loss", 3)
    assert "'train/loss' at step 3" in caplog.text
    await made.close()


async def test_a_column_that_is_refused_harms_no_other(swanlab: SwanLabServer) -> None:
    def refuse(request: Request) -> Fault | None:
        is_it = request.target.endswith("/series") and b"train/loss" in request.body
        return Fault(400) if is_it else None

    swanlab.faults = refuse
    made = tracker()
    await deliver(made, training(2))
    assert made.rejected == 1
    assert "train/learning_rate" in swanlab.run().columns
    assert swanlab.run().early == {"train/loss"}  # its numbers may be taken all the same
    await made.close()


async def test_a_configuration_that_is_refused_is_set_aside(swanlab: SwanLabServer) -> None:
    swanlab.faults = lambda r: Fault(400) if r.body.startswith(b'{"config"') else None
    made = tracker()
    await deliver(made, training(2))
    assert made.rejected == 1
    assert len(swanlab.run().values("train/loss")) == 2
    await made.close()


async def test_what_is_no_server_of_swanlab_is_said(swanlab: SwanLabServer) -> None:
    made = tracker()
    await play(made, training(1))
    swanlab.faults = failing("/api_key", Fault(200), Fault(501), Fault(404), Fault(302))
    for why in ("no answer of a SwanLab server", "501", "gives no session", "redirected"):
        with pytest.raises(AccessError, match=why):
            await made.flush()
    await made.close()


# -- models ----------------------------------------------------------------------------------------


async def test_the_files_of_a_checkpoint_are_below_its_name(
    swanlab: SwanLabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swanlab_files, "LARGE", 1000)
    monkeypatch.setattr(swanlab_files, "PART", 400)
    made = tracker(log_model="checkpoint")
    await deliver(made, training(2))
    content = bytes(range(256)) * 4
    folder = await kept(tmp_path, config__json=b"{}", empty=b"", large=content)
    await made.upload(folder)
    assert swanlab.run().files == {
        "checkpoint-2/config/json": b"{}",
        "checkpoint-2/empty": b"",
        "checkpoint-2/large": content,
    }
    assert (swanlab.problems, folder.pending()) == ([], [])
    await made.close()


async def test_an_upload_that_is_cut_off_is_done_again_and_a_refused_file_is_said(
    swanlab: SwanLabServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker(log_model="checkpoint")
    await deliver(made, training(2))
    folder = await kept(tmp_path, a=b"a" * 100, b=b"b" * 100)
    left = [Fault(503), Fault(403), Fault()]
    swanlab.faults = lambda r: left.pop(0) if left and "/storage/" in r.target else None
    assert await until_done(lambda: made.upload(folder)) >= 2
    assert swanlab.run().files == {"checkpoint-2/a": b"a" * 100, "checkpoint-2/b": b"b" * 100}
    swanlab.faults = failing("/prepare", Fault(400))
    await made.upload(await kept(tmp_path, 4, c=b"c"))
    assert "the file checkpoint-4/c" in caplog.text
    assert made.rejected == 1
    await made.close()


async def test_a_file_that_is_too_large_is_not_sent(
    swanlab: SwanLabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swanlab_files, "LARGEST", 10)
    made = tracker(log_model="checkpoint")
    await deliver(made, training(2))
    await made.upload(await kept(tmp_path, large=b"x" * 11, small=b"x"))
    assert set(swanlab.run().files) == {"checkpoint-2/small"}
    assert made.rejected == 1
    await made.close()


# -- steps that repeat -----------------------------------------------------------------------------


async def test_that_a_second_training_replaces_the_numbers_of_the_first_is_said_once(
    swanlab: SwanLabServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker()
    with caplog.at_level(logging.WARNING, "asynccb"):
        await deliver(made, [emitted("on_log", step, logs={"loss": 1.0}) for step in (1, 2)])
        await deliver(made, [emitted("on_log", 2, logs={"eval_loss": 1.0})])
        assert caplog.records == []
        await deliver(made, [emitted("on_log", step, logs={"loss": 2.0}) for step in (1, 2)])
    (said,) = [record.getMessage() for record in caplog.records]
    assert "keeps only the last logged value of train/loss for step 1" in said
    rows = swanlab.run().rows
    assert [rows["train/loss", step]["data"] for step in (1, 2)] == [2.0, 2.0]
    await made.close()


# -- restarts --------------------------------------------------------------------------------------


def test_a_training_that_names_another_place_does_not_go_on(
    swanlab: SwanLabServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asynccb")
    state = tracker().state()["attributes"]
    assert tracker().resume(state)
    assert not tracker(project="other").resume(state)
    assert not tracker(run_id="r").resume(state)
    assert "logged elsewhere" in caplog.text


async def test_the_line_of_a_bad_end_is_not_doubled_by_a_second_process(
    swanlab: SwanLabServer,
) -> None:
    made = tracker()
    await deliver(made, training(2))
    made.time = emitted("end", 3).time
    state = made.state()
    swanlab.faults = failing("/state", Fault(500))
    with pytest.raises(FaultError):
        await made.finish("crashed")
    again = revived(made, state)
    again.time = made.time
    await again.finish("crashed")
    assert list(swanlab.run().lines) == [1]
    assert swanlab.run().state == "CRASHED"
    await again.close()
    await made.close()


def test_requests_name_what_they_are_about_whatever_its_name() -> None:
    assert swanlab_rest._names("a/b", "ü?") == "a%2Fb/%C3%BC%3F"
