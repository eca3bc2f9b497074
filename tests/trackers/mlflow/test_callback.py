"""The MLflow tracker against a real MLflow server."""

from __future__ import annotations

import logging as log
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.mlflow import MLflowCallback
from asynccb.trackers.mlflow.api import Point
from tests.trackers.gate import Gate
from tests.trackers.lane import START, description, emitted, logging, play, training
from tests.trackers.mlflow.runs import deliver, expected, revived, run_id
from tests.trackers.mlflow.server import RealMLflow

Make = Callable[..., MLflowCallback]


@pytest.fixture
async def make(
    mlflow_server: RealMLflow, mlflow_environment: None, request: pytest.FixtureRequest
) -> AsyncIterator[Make]:
    """Make trackers in an experiment of the test's own, and close them in the end."""
    made: list[MLflowCallback] = []

    def tracker(run: RunDescription | None = None, **settings: Any) -> MLflowCallback:
        given = {"tracking_uri": mlflow_server.uri, "experiment_name": request.node.name}
        made.append(MLflowCallback(**{**given, **settings}))
        made[-1].describe(run or description())
        return made[-1]

    yield tracker
    for each in made:
        await each.close()


async def test_every_point_is_there_once_as_it_was_emitted(
    make: Make, mlflow_server: RealMLflow
) -> None:
    records = training(1501)
    run = await deliver(make(), records)
    for key in ("loss", "learning_rate"):
        assert mlflow_server.points(run, key) == expected(records, key)


async def test_a_run_has_its_name_params_tags_and_times(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make(description(run_name="first", hub_token="x"), tags={"team": "vision", "n": 3})
    run = await deliver(tracker, [*training(1), emitted("on_train_end", 2)])
    info = mlflow_server.run(run)["info"]
    assert info["run_name"] == "first"
    assert info["start_time"] == START // 1_000_000
    assert info["end_time"] == (START + 3_000_000) // 1_000_000
    assert info["status"] == "FINISHED"
    params = mlflow_server.params(run)
    assert params["hidden"] == "8"
    assert params["learning_rate"] == "0.0005", "an argument wins over the model's configuration"
    assert params["hub_token"] == "<HUB_TOKEN>"
    tags = mlflow_server.tags(run)
    assert (tags["team"], tags["n"]) == ("vision", "3")
    assert (tags["mlflow.user"], tags["mlflow.source.name"]) == ("ada", "train.py")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("finished", "FINISHED"),
        ("failed", "FAILED"),
        ("crashed", "FAILED"),
        ("killed", "KILLED"),
    ],
)
async def test_a_run_ends_as_it_really_ended(
    make: Make, mlflow_server: RealMLflow, status: RunStatus, state: str
) -> None:
    tracker = make()
    run = await deliver(tracker, training(1))
    assert mlflow_server.run(run)["info"]["status"] == "RUNNING"
    tracker.time = START + 77_000_000_000
    await tracker.finish(status)
    info = mlflow_server.run(run)["info"]
    assert (info["status"], info["end_time"]) == (state, START // 1_000_000 + 77_000)


async def test_what_is_logged_after_the_end_is_stored(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make()
    await deliver(tracker, [*training(1), emitted("on_train_end", 1)])
    run = await deliver(tracker, [emitted("on_predict", 1, metrics={"test_loss": 0.25})])
    assert mlflow_server.points(run, "test_loss")[0][:2] == (1, 0.25)
    assert mlflow_server.run(run)["info"]["status"] == "FINISHED"


async def test_a_run_in_which_nothing_happened_is_not_created(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make()
    await tracker.flush()
    await tracker.finish("crashed")
    assert tracker.state()["attributes"]["run_info"] is None


async def test_records_replayed_after_a_crash_are_stored_once(
    make: Make, mlflow_server: RealMLflow
) -> None:
    described = description()
    records = training(40)
    first = make(described)
    never_delivered = first.state()
    await deliver(first, records[:20])
    half_delivered = first.state()
    run = await deliver(first, records[20:])
    for state, rest in ((half_delivered, records[20:]), (never_delivered, records)):
        tracker = revived(state, described)
        assert await deliver(tracker, rest) == run
        assert tracker.rejected == 0
        await tracker.close()
    for key in ("loss", "learning_rate"):
        assert mlflow_server.points(run, key) == expected(records, key)
    assert len(mlflow_server.runs(first.settings.experiment_name or "")) == 1


async def test_a_server_that_comes_back_gets_the_rest(
    make: Make, mlflow_server: RealMLflow, mlflow_gate: Gate
) -> None:
    tracker, records = make(tracking_uri=mlflow_gate.uri), training(50)
    run = await deliver(tracker, records[:20])
    mlflow_gate.shut()
    await play(tracker, records[20:])
    for _ in range(2):
        with pytest.raises(TransientError):
            await tracker.flush()
    mlflow_gate.open()
    await tracker.flush()
    assert mlflow_server.points(run, "loss") == expected(records, "loss")


async def test_nan_and_infinity_do_not_harm_their_neighbours(
    make: Make, mlflow_server: RealMLflow
) -> None:
    odd = {"a": 1.0, "nan": math.nan, "up": math.inf, "down": -math.inf, "z": 2.0}
    run = await deliver(make(), [emitted("on_log", 3, logs=odd)])
    found = {key: mlflow_server.points(run, key)[0][1] for key in odd}
    assert (found["a"], found["z"]) == (1.0, 2.0)
    assert math.isnan(found["nan"])
    assert found["up"] > 1e308
    assert found["down"] < -1e308


async def test_odd_names_are_stored_under_the_nearest_name_that_the_server_takes(
    make: Make, mlflow_server: RealMLflow
) -> None:
    names = {
        "loss@top[5]": "loss_top_5__89b3d78d",
        "größe": "größe",
        "/a//b/../c/": "a/b/__/c_3f073f9c",
        "": "__00000000",
        "ok: 1/x-y.z": "ok: 1/x-y.z",
    }
    tracker = make()
    run = await deliver(tracker, [emitted("on_log", 1, logs=dict.fromkeys(names, 1.0))])
    for name in names.values():
        assert len(mlflow_server.points(run, name)) == 1
    assert tracker.rejected == 0


def test_names_that_differ_are_curves_that_differ_and_letters_of_any_script_stay(
    mlflow_server: RealMLflow, mlflow_environment: None, experiment: str, tmp_path: Path
) -> None:
    plain = ["精度", "召回", "Äpfel", "Öpfel", "потеря", "a²", "a b", "loss: x"]
    odd = ["recall>0.5", "recall<0.5", "loss@1", "loss%1", "loss_1", "a//b", "a/b", "हानि", "हाना"]
    logs = {name: float(number) for number, name in enumerate([*plain, *odd])}
    tracker = MLflowCallback(tracking_uri=mlflow_server.uri, experiment_name=experiment)
    args = asynccb.TrainingArguments(output_dir=str(tmp_path / "out"))
    with asynccb.CallbackDispatcher([tracker], args=args, directory=tmp_path / "runs") as run:
        run.step(logs=logs)
        run.step(logs=logs)
    (found,) = mlflow_server.runs(experiment)
    metrics = {metric["key"]: metric["value"] for metric in found["data"]["metrics"]}
    assert sorted(metrics.values()) == sorted(logs.values())
    for name in plain:
        assert metrics[name] == logs[name]
    for key in metrics:
        assert len(mlflow_server.points(found["info"]["run_id"], key)) == 2


async def test_a_name_that_had_to_be_changed_is_said_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    logs = {"said@once": 1.0, "不说": 1.0, "ftp://u:hunter2@h/x": 1.0}
    await deliver(make(), [emitted("on_log", step, logs=logs) for step in (1, 2, 3)])
    (said,) = [
        record.getMessage() for record in caplog.records if "no metric" in record.getMessage()
    ]
    assert said.startswith("MLflow accepts no metric called 'said@once'; it is called 'said_once_")
    assert "hunter2" not in caplog.text


async def test_parameters_whose_names_become_one_are_both_there(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make(description(**{"lr@1": 1, "lr%1": 2}))
    params = mlflow_server.params(await deliver(tracker, training(1)))
    assert sorted(value for name, value in params.items() if name.startswith("lr_1")) == ["1", "2"]


@pytest.mark.parametrize("letter", ["x", "精", "\U0001d49c"])
async def test_a_full_batch_of_the_longest_names_is_taken(
    make: Make, mlflow_server: RealMLflow, letter: str
) -> None:
    logs = {f"{i:04d}" + letter * 300: float(i) for i in range(1000)}
    tracker = make()
    run = await deliver(tracker, [emitted("on_log", 1, logs=logs)])
    assert tracker.rejected == 0
    assert len(mlflow_server.run(run)["data"]["metrics"]) == 1000


async def test_what_is_no_number_is_dropped_counted_and_said_once_per_name(
    make: Make, mlflow_server: RealMLflow, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        emitted("on_log", step, logs={"text": "x", "list": [1], "loss": 2.0, "flag": True})
        for step in (1, 2, 3)
    ]
    tracker = make()
    run = await deliver(tracker, records)
    assert tracker.rejected == 6
    assert caplog.text.count("'text'") == 1
    assert len(mlflow_server.points(run, "loss")) == 3
    assert mlflow_server.points(run, "flag")[0][1] == 1.0


async def test_a_refused_record_is_set_aside_and_the_rest_of_its_batch_stored(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make()
    run = await deliver(tracker, training(1))
    points = [Point("fine", float(i), START // 1_000_000, i) for i in range(100)]
    points[17] = Point("not@fine", 17.0, 1, 17)
    points[80] = Point("", 80.0, 1, 80)
    tracker._mlflow._outbox._points.extend(points)
    await tracker.flush()
    refusals = list(tracker.take_refusals())
    assert [refusal.record for refusal in refusals] == [points[17], points[80]]
    assert all("INVALID_PARAMETER_VALUE" in refusal.why for refusal in refusals)
    assert tracker.rejected == 2
    assert len(mlflow_server.points(run, "fine")) == 98


async def test_long_parameters_go_in_requests_below_the_size_limit(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make(description(**{f"p{i}": "ä" * 6000 for i in range(150)}))
    run = await deliver(tracker, training(1))
    assert tracker.rejected == 0
    assert sum(key.startswith("p") for key in mlflow_server.params(run)) == 150


async def test_a_parameter_that_was_logged_with_another_value_is_skipped_alone(
    make: Make, mlflow_server: RealMLflow
) -> None:
    first = description(a=1, b=2, c=3)
    run = await deliver(make(first), training(1))
    again = make(description(a=1, b="changed", c=3, d=4), run_id=run)
    assert await deliver(again, [*training(1, first=2)]) == run
    assert again.rejected == 1
    params = mlflow_server.params(run)
    assert [params[key] for key in "abcd"] == ["1", "2", "3", "4"]


async def test_parameters_above_the_length_limit_are_left_out_with_a_warning(
    make: Make, mlflow_server: RealMLflow, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = make(description(long="x" * 6001, fits="x" * 6000))
    params = mlflow_server.params(await deliver(tracker, training(1)))
    assert "long" not in params
    assert len(params["fits"]) == 6000
    assert "6001 characters" in caplog.text


async def test_parameters_are_flattened_and_limited_on_demand(
    make: Make, mlflow_server: RealMLflow
) -> None:
    nest = {"a": {"b": 1}}
    flat = await deliver(make(description(nest=nest), flatten_params=True), training(1))
    assert mlflow_server.params(flat)["nest.a.b"] == "1"
    few = await deliver(make(description(nest=nest), max_log_params=2), training(1))
    assert len(mlflow_server.params(few)) == 2


async def test_a_given_run_is_continued_and_runs_again(
    make: Make, mlflow_server: RealMLflow
) -> None:
    earlier = make()
    run = await deliver(earlier, training(3))
    await earlier.finish("failed")
    later = make(run_id=run, experiment_name=None)
    assert await deliver(later, training(3, first=4)) == run
    assert mlflow_server.run(run)["info"]["status"] == "RUNNING"
    assert [step for step, _, _ in mlflow_server.points(run, "loss")] == [1, 2, 3, 4, 5, 6]


async def test_a_given_run_wins_over_an_experiment_and_a_name(
    make: Make, mlflow_server: RealMLflow
) -> None:
    run = await deliver(make(description(run_name="first")), training(1))
    later = make(description(run_name="second"), run_id=run, experiment_name="another")
    assert await deliver(later, training(1, first=2)) == run
    assert mlflow_server.run(run)["info"]["run_name"] == "first"
    assert "another" not in [each["name"] for each in mlflow_server.experiments()]


async def test_an_experiment_that_is_not_there_is_made_and_none_is_the_default_one(
    make: Make, mlflow_server: RealMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def experiment(run: str) -> str:
        found = mlflow_server.run(run)["info"]["experiment_id"]
        names = [e["name"] for e in mlflow_server.experiments() if e["experiment_id"] == found]
        return names[0]

    assert experiment(await deliver(make(experiment_name=None), training(1))) == "Default"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "Of a Case")
    assert experiment(await deliver(make(experiment_name=None), training(1))) == "Of a Case"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a case")
    assert experiment(await deliver(make(experiment_name=None), training(1))) == "of a case"


async def test_a_nested_run_is_a_child_of_the_given_one_in_its_experiment(
    make: Make, mlflow_server: RealMLflow
) -> None:
    parent = await deliver(make(), training(1))
    child = await deliver(make(run_id=parent, nested_run=True, experiment_name=None), training(1))
    assert child != parent
    assert mlflow_server.tags(child)["mlflow.parentRunId"] == parent
    ids = [mlflow_server.run(run)["info"]["experiment_id"] for run in (parent, child)]
    assert ids[0] == ids[1]


async def test_an_unknown_run_is_an_access_error(make: Make) -> None:
    with pytest.raises(AccessError, match="f00d cannot be continued"):
        await deliver(make(run_id="f00d"), training(1))


async def test_a_run_deleted_meanwhile_is_an_access_error_and_keeps_the_outbox(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make()
    run = await deliver(tracker, training(1))
    mlflow_server.call("POST", "runs/delete", json={"run_id": run})
    with pytest.raises(AccessError, match=f"mlflow runs restore --run-id {run}"):
        await deliver(tracker, logging(2000, first=2))
    mlflow_server.call("POST", "runs/restore", json={"run_id": run})
    await tracker.flush()
    assert len(mlflow_server.points(run, "loss")) == 2001
    assert tracker.rejected == 0


async def test_a_deleted_experiment_is_an_access_error_that_says_how_to_restore_it(
    make: Make, mlflow_server: RealMLflow
) -> None:
    tracker = make(experiment_name="deleted one")
    made = mlflow_server.call("POST", "experiments/create", json={"name": "deleted one"})
    mlflow_server.call("POST", "experiments/delete", json=made)
    with pytest.raises(AccessError, match="mlflow experiments restore --experiment-id"):
        await deliver(tracker, training(1))
    mlflow_server.call("POST", "experiments/restore", json=made)
    await tracker.flush()


async def test_the_address_is_said_once_and_leads_to_the_run(
    make: Make, mlflow_server: RealMLflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(log.INFO, "asynccb")
    tracker = make()
    assert tracker.address is None
    run = await deliver(tracker, training(2))
    await deliver(tracker, logging(2, first=3))
    experiment = mlflow_server.run(run)["info"]["experiment_id"]
    assert tracker.address == f"{mlflow_server.uri}/#/experiments/{experiment}/runs/{run}"
    assert caplog.text.count(tracker.address) == 1
    assert run_id(tracker) == run
