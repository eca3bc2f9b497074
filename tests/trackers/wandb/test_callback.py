"""The W&B tracker against a server that is as strict as the vendor's."""

from __future__ import annotations

import logging as log
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb._ground.types import RunStatus
from asynccb.trackers.wandb import stream as wandb_stream
from asynccb.trackers.wandb.api import WandbServer as Rest
from tests.trackers.lane import START, description, emitted, logging, training
from tests.trackers.wandb.runs import deliver, lines, revived, tracker
from tests.trackers.wandb.server import ENTITY, Fault, Sent, WandbServer


@pytest.fixture(autouse=True)
def hurried_and_strict(
    wandb: WandbServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Without pauses, but in the test of these; and nothing is refused, but in tests of that."""
    if "a_second" not in request.node.name:
        wandb.per_second = 10**6
        monkeypatch.setattr(wandb_stream, "_PACE", 1e6)
    yield
    if "refused" not in request.node.name:
        assert wandb.refused == []


async def test_every_log_is_a_line_once_with_its_numbers_and_times(wandb: WandbServer) -> None:
    records = training(300)
    made = tracker(description())
    await deliver(made, records)
    await made.close()
    run = wandb.run("proj")
    assert run.metrics == lines(records)
    for line, record in zip(run.history, records[1:], strict=True):
        assert line["_timestamp"] == pytest.approx(record.time / 1e9, abs=1e-6)
        assert line["_runtime"] == pytest.approx((record.time - START) / 1e9)
    assert len(run.bodies) == 1
    assert made.address == f"{wandb.url}/{ENTITY}/proj/runs/{run.name}"


async def test_steps_that_repeat_or_go_back_are_lines_of_their_own(wandb: WandbServer) -> None:
    records = [*training(3), *logging(3, first=2), emitted("on_log", 1, logs={"loss": 9.0})]
    made = tracker(description())
    await deliver(made, records)
    await made.close()
    assert wandb.run().metrics == lines(records)
    assert [line["train/global_step"] for line in wandb.run().history] == [1, 2, 3, 2, 3, 4, 1]


async def test_a_tracker_that_was_cut_off_after_any_flush_goes_on_with_the_same_lines(
    wandb: WandbServer,
) -> None:
    run, records = description(), training(60)
    for cut in (1, 20, 21, 60):
        made = tracker(run, project=f"cut-{cut}")
        await deliver(made, records[:cut])
        kept = made.state()
        await deliver(made, records[cut : cut + 20])  # is sent, and its cursor never written
        await made.close()
        again = revived(kept, run)
        await deliver(again, records[cut:])
        await again.finish("finished")
        await again.close()
        found = wandb.run(f"cut-{cut}")
        assert found.metrics == lines(records)
        assert found.resent == len(records[max(cut, 1) : cut + 20])
        assert found.state == "finished"


async def test_a_companion_that_died_before_its_first_cursor_leaves_no_second_run_and_no_line_twice(
    wandb: WandbServer,
) -> None:
    run, records = description(), training(10)
    for _ in range(2):
        made = tracker(run)
        await deliver(made, records)
        await made.close()
    assert wandb.run().metrics == lines(records)
    assert wandb.run().resent == 10


@pytest.mark.parametrize("resume", ["allow", "must", None])
async def test_a_run_that_is_resumed_goes_on_where_it_had_come_even_if_begun_twice(
    wandb: WandbServer, resume: str | None
) -> None:
    first, second = description(old=1, both="a"), description(both="b")
    made = tracker(first, run_id="mine", name="named")
    await deliver(made, training(5))
    await made.finish("failed")
    await made.close()
    before = wandb.run().history[-1]
    for _ in range(2):  # the second time after a crash before the first cursor
        made = tracker(second, run_id="mine", resume=resume)
        await deliver(made, training(5, first=6))
        await made.close()
    run = wandb.run()
    assert run.metrics == lines([*training(5), *training(5, first=6)])
    assert run.history[5]["_runtime"] > before["_runtime"]
    assert run.config["old"] == {"value": 1}
    assert run.config["both"] == {"value": "b"}
    assert len(run.config["_wandb"]["value"]["e"]) == 2
    assert run.summary["_step"] == 9
    assert run.display_name == "named"
    assert run.state == "running"


@pytest.mark.parametrize("delivered", [5, 3, 0])
async def test_a_training_that_resumes_another_goes_on_in_its_run_even_if_begun_twice(
    wandb: WandbServer, delivered: int
) -> None:
    first = description()
    made = tracker(first)
    await deliver(made, training(delivered) if delivered else [])
    state = made.state()["attributes"]
    await deliver(made, logging(5 - delivered, first=delivered + 1))  # the checkpoint was before
    await made.finish("failed")
    await made.close()
    again = replace(first, training="another")
    for _ in range(2):  # the second time after a crash before the first cursor
        made = tracker(again, resume="never")
        if delivered:  # or nobody knew of the run when the checkpoint was made
            assert made.resume(state)
        later = [replace(e, time=e.time + 10**12) for e in logging(3, first=6)]
        await deliver(made, later)
        await made.close()
    run = wandb.run()
    assert run.metrics == lines(training(8))
    assert run.history[-1]["_runtime"] == pytest.approx((later[-1].time - START) / 1e9)
    assert run.state == "running"


async def test_a_training_that_resumes_another_with_other_settings_has_a_run_of_its_own(
    wandb: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker(description())
    await deliver(made, training(2))
    state = made.state()["attributes"]
    await made.close()
    for given in ({"project": "other"}, {"run_id": "other"}, {"base_url": "http://other"}):
        assert not tracker(description(), **given).resume(state)
    assert caplog.text.count("logged elsewhere") == 3
    assert tracker(description()).resume(tracker(description()).state()["attributes"])


async def test_resume_must_needs_a_run_and_never_needs_none(wandb: WandbServer) -> None:
    with pytest.raises(AccessError, match=r"no W&B run mine .*WANDB_RUN_ID"):
        await deliver(tracker(description(), run_id="mine", resume="must"), training(1))
    mine = description()
    for _ in range(2):  # the second time it is there already, and ours
        await deliver(tracker(mine, run_id="mine", resume="never"), training(1))
    with pytest.raises(AccessError, match="there is a W&B run mine already"):
        await deliver(tracker(description(), run_id="mine", resume="never"), training(1))


async def test_the_run_is_described_by_settings_arguments_and_model(
    wandb: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_NAME", "not this")
    run = description(run_name="this", hub_token="hf_abc", nested={"password": "x", "b": 2})
    made = tracker(
        run, tags=["t1", "t2"], notes="why", group="sweep 3", job_type="train", entity=ENTITY
    )
    await deliver(made, training(1))
    await made.close()
    found = wandb.run()
    assert found.display_name == "this"
    wanted = {"tags": ["t1", "t2"], "notes": "why", "groupName": "sweep 3", "jobType": "train"}
    assert {key: found.fields[key] for key in wanted} == wanted
    config = {key: entry["value"] for key, entry in found.config.items()}
    assert config["learning_rate"] == 5e-4
    assert config["hidden"] == 8
    assert config["model/num_parameters"] == 10
    assert config["hub_token"] == "<HUB_TOKEN>"
    assert config["nested"] == {"password": "<PASSWORD>", "b": 2}
    assert [metric.get("1", metric.get("2")) for metric in config["_wandb"]["m"]] == [
        "train/global_step",
        "*",
    ]


async def test_a_configuration_that_changes_is_sent_whole(wandb: WandbServer) -> None:
    run = description(old=1)
    made = tracker(run)
    await deliver(made, training(1))
    made.describe(description(old=2, new=3))
    await deliver(made, logging(1, first=2))
    await made.close()
    config = wandb.run().config
    assert (config["old"], config["new"]) == ({"value": 2}, {"value": 3})
    assert wandb.run().upserts == 2


async def test_figures_of_the_whole_run_are_in_the_summary_alone(wandb: WandbServer) -> None:
    made = tracker(description())
    final = {"train_runtime": 3.5, "train_loss": 0.25, "total_flos": 1e12, "epoch": 2.0}
    await deliver(made, [*training(2), emitted("on_log", 2, logs=final)])
    await made.close()
    run = wandb.run()
    assert run.metrics[-1] == {"train/epoch": 2.0, "train/global_step": 2, "_step": 2}
    assert run.summary["train_runtime"] == 3.5
    assert run.summary["train_loss"] == 0.25
    assert run.summary["train/loss"] == 0.5
    assert run.summary["_wandb"] == {"runtime": 0}


async def test_names_as_given_are_kept_apart_from_the_keys_of_a_line_and_of_histograms(
    wandb: WandbServer,
) -> None:
    made = tracker(description(), watch="gradients", names="given")
    logs = {"_step": 70.0, "_runtime": 80.0, "gradients/w": 1.0, "loss": 2.0, "_mine": 3.0}
    await deliver(made, [*training(0), emitted("on_log", 1, logs=logs)])
    await made.told("histograms", {"step": 1, "gradients/w": [0.0, 1.0, *[2.0] * 64]}, 1)
    await made.flush()
    await made.close()
    line, histogram = wandb.run().history
    assert line["_step"] == 0
    assert line["_runtime"] < 1.0
    assert (line["loss"], line["_mine"]) == (2.0, 3.0)
    shown = {name.rpartition("_")[0]: value for name, value in line.items()}
    assert (shown["step"], shown["runtime"], shown["gradients/w"]) == (70.0, 80.0, 1.0)
    assert histogram["gradients/w"]["_type"] == "histogram"


async def test_values_of_every_kind_and_odd_keys_arrive_as_they_are(wandb: WandbServer) -> None:
    logs: dict[str, Any] = {
        "nan": math.nan,
        "inf": math.inf,
        "down": -math.inf,
        "text": "é\n\ud800",
        "list": [1, 2.5, None],
        "nested": {"a": {"b": 1}},
        "big": 2**63,
        "flag": True,
        "none": None,
        "": 0.0,
        "a b/c.d\"'": 1.0,
        "k" * 5000: 2.0,
    }
    made = tracker(description())
    await deliver(made, [emitted("on_train_begin", 0), emitted("on_log", 1, logs=logs)])
    await deliver(made, [emitted("on_predict", 1, metrics={"test_loss": 0.5, "eval_x": 1})])
    await made.close()
    first, second = wandb.run().metrics
    assert math.isnan(first.pop("train/nan"))
    assert first == {
        **{f"train/{key}": value for key, value in logs.items() if key != "nan"},
        "train/global_step": 1,
        "_step": 0,
    }
    assert second == {"test/loss": 0.5, "eval/x": 1, "train/global_step": 1, "_step": 1}
    assert made.rejected == 0


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [("finished", "finished", 0), ("failed", "failed", 1), ("killed", "failed", 255)],
)
async def test_a_run_ends_as_its_training_did(
    wandb: WandbServer, status: RunStatus, state: str, code: int
) -> None:
    made = tracker(description())
    await deliver(made, training(2))
    await made.finish(status)
    await made.close()
    assert wandb.run().state == state
    assert wandb.run().exit_code == code


async def test_a_run_whose_training_died_is_left_to_the_server_which_shows_it_as_crashed(
    wandb: WandbServer,
) -> None:
    wandb.crash_after = 0.0
    made = tracker(description())
    await deliver(made, training(2))
    await made.finish("crashed")
    await made.close()
    assert wandb.run().state == "crashed"
    assert wandb.run().metrics == lines(training(2))


async def test_nothing_is_made_of_a_run_in_which_nothing_happened(wandb: WandbServer) -> None:
    made = tracker(description())
    await made.flush()
    await made.finish("finished")
    await made.close()
    assert wandb.sent == []


async def test_a_lost_answer_doubles_nothing(wandb: WandbServer) -> None:
    lost: set[str] = set()

    def lose_first(request: Sent) -> Fault | None:
        what = request.json.get("operationName") or str(sorted(request.json))
        if what in lost:
            return None
        lost.add(what)
        return Fault(obeys=True)

    wandb.faults = lose_first
    made = tracker(description())
    failures = 0
    records = training(5)
    await deliver_patiently(made, records)
    for _ in range(5):
        try:
            await made.finish("finished")
            break
        except TransientError:
            failures += 1
    await made.close()
    assert len(lost) == 4
    assert failures == 1
    assert wandb.run().metrics == lines(records)
    assert wandb.run().state == "finished"


async def deliver_patiently(made: Any, records: Any) -> None:
    """Do as a lane does: hooks once, the flush until it succeeds."""
    with pytest.raises(TransientError):
        await deliver(made, records)
    for _ in range(20):
        try:
            return await made.flush()
        except TransientError:
            continue
    raise AssertionError("it never succeeds")


async def test_a_line_that_is_refused_is_set_aside_and_the_others_keep_their_places(
    wandb: WandbServer,
) -> None:
    wandb.faults = lambda request: Fault(400, b"no sevens") if b"0.7}" in request.body else None
    records = [emitted("on_log", step, logs={"x": step / 10}) for step in range(1, 20)]
    for record in records:
        record.extra["logs"] = {"x": {"y": record.step / 10}}
    made = tracker(description())
    await deliver(made, records)
    await made.close()
    run = wandb.run()
    assert [line["_step"] for line in run.history] == list(range(19))
    assert [line.get("train/x") for line in run.history] == [
        None if step == 7 else {"y": step / 10} for step in range(1, 20)
    ]
    (refusal,) = made.take_refusals()
    assert '"y":0.7}' in refusal.record
    assert made.rejected == 1


async def test_a_line_that_is_too_long_is_set_aside_before_it_is_sent(
    wandb: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynccb.trackers.wandb.outbox.LONGEST_LINE", 5000)
    long = emitted("on_log", 2, logs={"text": "x" * 6000})
    made = tracker(description())
    await deliver(made, [*training(1), long, *logging(1, first=3)])
    await made.close()
    run = wandb.run()
    assert [line.get("train/loss") for line in run.history] == [1.0, None, 1 / 3]
    assert "train/text" not in run.summary
    assert made.rejected == 1


@pytest.mark.parametrize("status", [404, 409, 410, 501])
async def test_a_stream_that_is_refused_for_good_ends_the_tracker(
    wandb: WandbServer, status: int
) -> None:
    wandb.faults = lambda request: (
        Fault(status, b"gone") if request.path.endswith("file_stream") else None
    )
    with pytest.raises(AccessError, match=str(status)):
        await deliver(tracker(description()), training(1))


async def test_an_error_beside_a_200_refused_or_not_says_what_the_server_said(
    wandb: WandbServer,
) -> None:
    with pytest.raises(AccessError, match="entity nobody not found"):
        await deliver(tracker(description(), entity="nobody"), training(1))
    client = tracker(description()).connect()
    with pytest.raises(RejectedError, match="Cannot query field"):
        await Rest(client).execute("X", "query X { nothing }", {})
    await client.close()


async def test_a_conflict_on_the_run_is_tried_again(wandb: WandbServer) -> None:
    wandb.faults = lambda request: Fault(409, b"busy") if request.path == "/graphql" else None
    with pytest.raises(TransientError):
        await deliver(tracker(description()), training(1))


async def test_a_run_that_was_deleted_is_not_made_again(wandb: WandbServer) -> None:
    run = description()
    made = tracker(run)
    await deliver(made, training(1))
    await made.close()
    wandb.runs.clear()
    with pytest.raises(AccessError, match="is gone"):
        await deliver(revived(made.state(), run), logging(1, first=2))


async def test_the_stop_button_asks_the_training_to_stop_once(
    wandb: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []
    made = tracker(description())
    made.request = type(made.request)(asked.append)
    await deliver(made, training(1))
    assert asked == []
    wandb.run().stop = True
    await made.heartbeat()
    await made.heartbeat()
    await made.close()
    (flags,) = asked
    assert flags.should_training_stop


async def test_the_stop_button_of_a_run_that_is_synced_later_stops_nothing(
    wandb: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker(description())
    await deliver(made, training(1))
    wandb.run().stop = True
    with caplog.at_level(log.INFO, "asynccb"):
        await made.heartbeat()
    await made.close()
    assert "not there any more" in caplog.text


async def test_a_heartbeat_says_nothing_but_that_the_run_lives(wandb: WandbServer) -> None:
    made = tracker(description(), system_metrics=False)
    await deliver(made, training(1))
    await made.heartbeat()
    await made.close()
    assert wandb.run().bodies[-1] == {}


async def test_no_more_than_one_request_a_second_is_sent(wandb: WandbServer) -> None:
    made = tracker(description())
    for step in range(1, 4):
        await deliver(made, logging(1, first=step))
    await made.close()
    times = wandb.run().times
    assert len(times) == 3
    assert min(later - sooner for sooner, later in pairwise(times)) > 0.9


async def test_a_quota_that_is_used_up_is_waited_for(wandb: WandbServer) -> None:
    wandb.quota = {"RateLimit-Remaining": "0", "RateLimit-Reset": "1"}
    made = tracker(description())
    for step in (1, 2):
        await deliver(made, logging(1, first=step))
    await made.close()
    first, second = wandb.run().times
    assert second - first > 0.9
