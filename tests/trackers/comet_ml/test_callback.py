"""What a Comet server is told: names and values, parameters, files, signs of life, and the end."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._state.run_description import ModelDescription, RunDescription
from asynccb.trackers.comet_ml import api as comet_rest
from asynccb.trackers.comet_ml.values import short
from tests.trackers.comet_ml.runs import kept, tracker
from tests.trackers.comet_ml.server import CometServer, Sent
from tests.trackers.lane import START, deliver, description, emitted, play, revived, training
from tests.trackers.scripted import Answer


async def test_metrics_have_the_names_steps_epochs_and_times_of_their_logs(
    comet: CometServer,
) -> None:
    made = tracker()
    await deliver(made, [emitted("on_log", 7, logs={"loss": 0.5, "eval_loss": 1, "ok": True})])
    await made.close()
    head = {"step": 7, "epoch": 0, "context": None, "timestamp": emitted("", 7).time // 10**6}
    assert comet.experiment().metrics == [
        {"metricName": "train/loss", "metricValue": 0.5, **head},
        {"metricName": "eval/loss", "metricValue": 1.0, **head},
        {"metricName": "train/ok", "metricValue": 1.0, **head},
    ]


async def test_parameters_are_grouped_and_hold_no_secret(comet: CometServer) -> None:
    run = description(hub_token="very secret", nested={"a": {"b": 1}}, lists=[1, [2]], empty={})
    model = ModelDescription("Net", {"hidden": 8, "id2label": {"0": "A"}}, 10, 8, {"r": 4})
    made = tracker(replace(run, model=model))
    await deliver(made, training(1))
    await made.close()
    experiment = comet.experiment()
    assert experiment.parameters == {
        "args|learning_rate": 5e-4,
        "args|hub_token": "<HUB_TOKEN>",
        "args|nested|a|b": 1,
        "args|lists": "[1,[2]]",
        "config|hidden": 8,
        "config|id2label|0": "A",
        "peft_config|r": 4,
    }
    assert experiment.others["hasNestedParams"] is True
    assert experiment.written["file-path"]["filePath"] == "train.py"
    details = experiment.written["system-details"]
    assert (details["hostname"], details["user"], details["command"]) == (
        "node7",
        "ada",
        ["train.py"],
    )
    assert "os" not in details  # it is another machine that delivers
    assert "very secret" not in repr(comet.sent)


@pytest.mark.parametrize(
    ("given", "argument", "variable", "name"),
    [
        ("given", "argument", "variable", "given"),
        (None, "argument", "variable", "argument"),
        (None, None, "variable", "variable"),
        (None, None, None, None),
    ],
)
async def test_the_name_is_the_one_given_then_the_arguments_then_the_variables(
    comet: CometServer,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    argument: str | None,
    variable: str | None,
    name: str | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("COMET_EXPERIMENT_NAME", variable)
    made = tracker(description(run_name=argument), name=given)
    await deliver(made, training(1))
    await made.close()
    assert comet.experiment().others.get("Name") == name


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = short("a" * 100 + "1"), short("a" * 100 + "2")
    assert len(first) == len(second) == 100
    assert first != second
    assert short("a" * 100) == "a" * 100


async def test_the_machine_is_described_where_the_training_runs(comet: CometServer) -> None:
    live = replace(description(), host=socket.gethostname(), pid=os.getppid())
    made = tracker(live)
    await deliver(made, training(1))
    await made.close()
    details = comet.experiment().written["system-details"]
    assert {"os", "osType", "pythonVersion", "executable", "machine"} <= details.keys()


# -- which experiment ------------------------------------------------------------------------------

GIVEN = "a" * 32


async def begun(**settings: object) -> None:
    made = tracker(**settings)
    try:
        await deliver(made, training(1))
        await made.finish("finished")
    finally:
        await made.close()


async def test_get_or_create_makes_an_experiment_and_then_goes_on_with_it(
    comet: CometServer,
) -> None:
    await begun(experiment_key=GIVEN, workspace="alice")
    assert comet.experiment().sessions == 1
    await begun(experiment_key=GIVEN)
    assert (comet.experiment().key, comet.experiment().sessions) == (GIVEN, 2)


async def test_create_refuses_an_experiment_that_is_there(comet: CometServer) -> None:
    await begun(experiment_key=GIVEN, mode="create")
    with pytest.raises(AccessError, match="already"):
        await begun(experiment_key=GIVEN, mode="create")
    assert comet.experiment().sessions == 1


async def test_create_takes_what_a_lost_answer_made(comet: CometServer) -> None:
    lost = [Answer(200, b"")]

    def fault(request: Sent) -> Answer | None:
        if request.path.endswith("add/run") and lost:
            comet._obey(request)
            return lost.pop()
        return None

    comet.fault = fault
    made = tracker(experiment_key=GIVEN, mode="create")
    await deliver(made, training(1))
    await made.close()
    assert comet.experiment().points("train/loss") == [(1, 1.0)]


async def test_get_gives_up_where_there_is_none(comet: CometServer) -> None:
    with pytest.raises(AccessError, match="there is no Comet experiment a"):
        await begun(experiment_key=GIVEN, mode="get")


async def test_a_wrong_key_and_a_wrong_workspace_are_said(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AccessError, match="no such workspace"):
        await begun(workspace="bob")
    monkeypatch.setenv("COMET_API_KEY", "not-this-one")
    with pytest.raises(AccessError, match="COMET_API_KEY") as caught:
        await begun()
    assert "not-this-one" not in str(caught.value)


async def test_a_training_resumed_with_other_settings_goes_elsewhere(comet: CometServer) -> None:
    first = tracker()
    await deliver(first, training(1))
    await first.close()
    attributes = json.loads(json.dumps(first.state()["attributes"]))
    assert not tracker(experiment_key=GIVEN).resume(attributes)
    assert not tracker(url="http://127.0.0.1:1").resume(attributes)
    assert tracker(online=False).resume(attributes)


# -- files -----------------------------------------------------------------------------------------


async def test_files_are_stored_below_the_folders_name_and_again_replace_themselves(
    comet: CometServer, tmp_path: Path
) -> None:
    made = tracker(log_assets=True)
    await deliver(made, training(1))
    for content in (b"first", b"second"):
        await made.upload(kept(tmp_path, 5, checkpoint__weights_bin=content, README=b"r"))
    await made.close()
    assets = comet.experiment().assets
    assert {name: content for name, (_, content) in assets.items()} == {
        "out/checkpoint/weights.bin": b"second",
        "out/README": b"r",
    }
    told = assets["out/checkpoint/weights.bin"][0]
    assert (told["extension"], told["step"]) == ("bin", "5")
    ids = [sent.query["assetId"] for sent in comet.sent if sent.path.endswith("asset/upload")]
    assert len(ids) == 4
    assert len(set(ids)) == 2


async def test_a_file_that_is_too_large_is_rejected_alone(
    comet: CometServer, tmp_path: Path
) -> None:
    comet.largest_asset = 0
    made = tracker()
    await deliver(made, training(1))
    await made.upload(kept(tmp_path, 5, weights_bin=b"w", empty=b""))
    await made.close()
    assert made.rejected == 1
    assert set(comet.experiment().assets) == {"out/empty"}


async def test_a_page_of_a_proxy_does_not_stand_for_a_file(
    comet: CometServer, tmp_path: Path
) -> None:
    pages = [Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})]
    comet.fault = lambda sent: pages.pop() if pages and "asset" in sent.path else None
    made = tracker()
    await deliver(made, training(1))
    files = kept(tmp_path, 5, weights_bin=b"w")
    with pytest.raises(TransientError, match="log in"):
        await made.upload(files)
    await made.upload(files)
    await made.close()
    assert set(comet.experiment().assets) == {"out/weights.bin"}


# -- life and end ----------------------------------------------------------------------------------


async def test_beats_come_as_often_as_the_server_asks(comet: CometServer) -> None:
    comet.beat = 2.5
    made = tracker()
    await made.heartbeat()
    assert comet.sent == []
    await deliver(made, training(1))
    assert (made.beat, comet.experiment().alive, comet.experiment().beats) == (2.5, True, 1)
    comet.beat = 0.001
    await made.heartbeat()
    assert (made.beat, comet.experiment().beats) == (1.0, 2)
    await made.close()


async def test_a_stop_on_the_page_is_a_request_once_and_is_noted(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []
    made = tracker()
    monkeypatch.setattr(made, "request", lambda **flags: asked.append(flags), raising=False)
    await deliver(made, training(1))
    for _ in range(2):
        comet.experiment().press_stop()
        await made.heartbeat()
    await made.flush()
    await made.close()
    assert asked == [{"should_training_stop": True}]
    assert comet.experiment().others["experiment_stopped_by_user"] is True


@pytest.mark.parametrize(
    ("status", "word"), [("failed", "exception"), ("killed", "signal"), ("crashed", "died")]
)
async def test_a_bad_end_is_told_before_the_last_word(
    comet: CometServer, status: str, word: str
) -> None:
    made = tracker()
    await deliver(made, training(1))
    for _ in range(2):
        await made.finish(status)  # type: ignore[arg-type]
    await made.heartbeat()
    await made.close()
    assert word in (comet.experiment().error or "")
    assert [sent.path.rpartition("/")[2] for sent in comet.sent[-2:]] == ["update-status", "update"]
    assert comet.sent[-1].json["is_alive"] is False


async def test_an_experiment_that_was_deleted_ends_the_tracker(comet: CometServer) -> None:
    made = tracker()
    await deliver(made, training(1))
    comet.experiments.clear()
    await play(made, training(1, first=2))
    with pytest.raises(AccessError, match="is gone"):
        await made.flush()
    with pytest.raises(AccessError, match="is gone"):
        await made.heartbeat()
    await made.close()


async def test_a_new_companion_goes_on_in_the_same_session(comet: CometServer) -> None:
    made = tracker()
    await deliver(made, training(3))
    await made.close()
    again = revived(made, made.state())
    await deliver(again, training(3, first=4))
    await again.finish("finished")
    await again.close()
    assert comet.experiment().sessions == 1
    assert [step for step, _ in comet.experiment().points("train/loss")] == list(range(1, 7))


# -- limits ----------------------------------------------------------------------------------------


async def test_twenty_thousand_steps_arrive_complete_in_order_and_within_the_rate(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, burst = comet_rest.METRIC_RATE
    assert rate * 60 + burst <= comet.limits["metric"]
    faster = rate * 120  # or it would take four minutes
    monkeypatch.setattr(comet_rest, "METRIC_RATE", (faster, burst))
    comet.limits["metric"] = 10**9
    made = tracker()
    begin = time.monotonic()
    for first in range(1, 20_001, 2000):
        await deliver(made, training(2000, first=first))
    await made.close()
    experiment = comet.experiment()
    assert comet.refused == []
    assert experiment.points("train/loss") == [(step, 1 / step) for step in range(1, 20_001)]
    assert len(experiment.points("train/learning_rate")) == 20_000
    arrived = 0
    for sent in comet.sent:
        if sent.path.endswith("/metric"):
            arrived += len(sent.json["values"])
            assert arrived <= burst + faster * (sent.at - begin)


def many_parameters(monkeypatch: pytest.MonkeyPatch) -> RunDescription:
    """Return a run of 100 labels, of which a server takes 20 at once."""
    monkeypatch.setattr(comet_rest, "PARAMETER_RATE", (200.0, 20.0))
    labels = {"id2label": {str(number): f"L{number}" for number in range(100)}}
    return replace(description(), model=ModelDescription("Net", labels, 10, 8))


def labels_of(comet: CometServer) -> int:
    return sum("id2label" in name for name in comet.experiment().parameters)


async def test_metrics_do_not_wait_for_parameters_which_are_there_in_the_end(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracker(many_parameters(monkeypatch))
    await deliver(made, training(3))
    assert len(comet.experiment().points("train/loss")) == 3
    assert len(comet.experiment().parameters) == 20
    kinds = [sent.path.rpartition("/")[2] for sent in comet.sent]
    assert kinds.index("metric") < kinds.index("parameter")
    await made.finish("finished")
    await made.close()
    assert labels_of(comet) == 100


async def test_parameters_that_a_dead_companion_has_left_are_sent_by_the_next_one(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracker(many_parameters(monkeypatch))
    await deliver(made, training(1))
    await made.close()
    again = revived(made, made.state())
    again.time = START
    await again.finish("crashed")
    await again.close()
    assert labels_of(comet) == 100


async def test_one_that_waits_for_its_turn_goes_on_saying_that_it_lives(
    comet: CometServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comet_rest, "METRIC_RATE", (4000.0, 1000.0))
    monkeypatch.setattr("asynccb.trackers.comet_ml.callback._BEATS", (0.2, 300.0))
    comet.beat = 0.2
    made = tracker()
    await deliver(made, training(2500))
    await made.close()
    assert comet.experiment().beats > 2


async def test_a_429_is_waited_for_as_long_as_comet_says_and_holds_up_metrics_alone(
    comet: CometServer,
) -> None:
    told = [Answer(429, b'{"msg": "slow"}', {"Retry-After-Custom": "60"})]
    comet.fault = lambda sent: told.pop() if sent.path.endswith("/metric") and told else None
    made = tracker()
    await play(made, training(5))
    with pytest.raises(TransientError) as caught:
        await made.flush()
    assert caught.value.retry_after == 60
    with anyio.fail_after(30):
        await made.heartbeat()
    assert comet.experiment().points("train/loss") == []
    again = revived(made, made.state())
    await deliver(again, training(5))
    await again.close()
    await made.close()
    assert len(comet.experiment().points("train/loss")) == 5


async def test_what_is_stored_though_its_answer_was_lost_is_not_sent_again(
    comet: CometServer,
) -> None:
    lost = [2]

    def fault(sent: Sent) -> Answer | None:
        if not sent.path.endswith("/metric"):
            return None
        lost[0] -= 1
        if lost[0]:
            return None
        comet._obey(sent)
        return Answer(200, b"<html>", {})

    comet.fault = fault
    made = tracker()
    odd = {"loss": float("nan"), "tiny": 8.63224093336612e-4, "text": "a", "loss_2": 1.0}
    await play(made, [*training(600), emitted("on_log", 601, logs=odd)])
    with pytest.raises(TransientError):
        await made.flush()
    await made.flush()
    await made.close()
    experiment = comet.experiment()
    assert experiment.points("train/loss") == [
        *((step, 1 / step) for step in range(1, 601)),
        (601, "NaN"),
    ]
    assert len(experiment.points("train/learning_rate")) == 600
    assert experiment.points("train/tiny") == [(601, 8.63224093336612e-4)]
    assert experiment.points("train/text") == [(601, "a")]


async def test_what_somebody_else_has_logged_last_is_no_reason_to_leave_ours_out(
    comet: CometServer,
) -> None:
    made = tracker(experiment_key=GIVEN)
    await deliver(made, training(3))
    await made.close()
    other = tracker(experiment_key=GIVEN)
    await deliver(other, [emitted("on_log", 3, logs={"loss": 5.0}), *training(2, first=4)])
    await other.close()
    assert comet.experiment().points("train/loss") == [
        (1, 1.0), (2, 1 / 2), (3, 1 / 3), (3, 5.0), (4, 1 / 4), (5, 1 / 5),
    ]  # fmt: skip


async def test_an_answer_without_a_body_is_enough_and_a_page_of_a_proxy_is_none(
    comet: CometServer,
) -> None:
    bodies = [b"<html>log in</html>"]

    def fault(sent: Sent) -> Answer | None:
        if not sent.path.endswith("/metric"):
            return None
        if bodies:
            return Answer(200, bodies.pop())
        comet._obey(sent)
        return Answer(200, b"")

    comet.fault = fault
    made = tracker()
    await play(made, training(3))
    with pytest.raises(TransientError, match="log in"):
        await made.flush()
    await made.flush()
    await made.close()
    assert comet.experiment().points("train/loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]


async def test_a_value_that_is_refused_is_set_aside_alone(comet: CometServer) -> None:
    def fault(sent: Sent) -> Answer | None:
        values = sent.json["values"] if sent.path.endswith("/metric") else []
        bad = any(value["step"] == 37 for value in values)
        return Answer(400, b'{"msg": "no", "code": 400, "sdk_error_code": 7}') if bad else None

    comet.fault = fault
    made = tracker()
    await deliver(made, training(100))
    await made.close()
    assert made.rejected == 2  # the two of that step
    assert {refusal.record.step for refusal in made.take_refusals()} == {37}
    steps = [step for step, _ in comet.experiment().points("train/loss")]
    assert steps == [step for step in range(1, 101) if step != 37]
