"""The ClearML tracker against a server that checks with the vendor's own request classes."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import socket
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._ground.types import RunStatus
from asynccb.trackers.clearml import outbox as clearml_outbox
from asynccb.trackers.clearml.values import machine_scalars
from tests.trackers.clearml.runs import kept, tracker
from tests.trackers.clearml.server import ClearMLServer
from tests.trackers.clearml.tasks import SINGLE
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
from tests.trackers.scripted import Answer

END = {
    "loss": 0.5,
    "eval_loss": 0.25,
    "test_acc": 0.75,
    "train_loss": 0.4,
    "train_runtime": 2.0,
    "total_flos": 5,
    "epoch": 1.5,
}


async def test_that_a_second_training_replaces_the_values_of_the_first_is_said_once(
    clearml: ClearMLServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker()
    with caplog.at_level(logging.WARNING, "asynccb"):
        await deliver(made, training(3))
        assert caplog.records == []
        await deliver(made, training(3))
    assert [r.getMessage() for r in caplog.records if "last logged value" in r.getMessage()] == [
        "ClearML keeps only the last logged value of train/loss for step 1; the same applies to "
        "other series whose steps repeat or go back (logged once)"
    ]
    await made.close()


async def test_values_are_at_title_series_and_step_and_those_of_the_run_are_single(
    clearml: ClearMLServer,
) -> None:
    made = tracker()
    await deliver(made, [emitted("on_log", 7, logs={"epoch": 1.0}), emitted("on_log", 7, logs=END)])
    await made.finish("finished")
    task = clearml.tasks.only()
    assert task.scalars == {
        ("train", "loss", 7): 0.5,
        ("eval", "loss", 7): 0.25,
        ("test", "acc", 7): 0.75,
        ("Summary", "train_loss", SINGLE): 0.4,
        ("Summary", "train_runtime", SINGLE): 2.0,
        ("Summary", "total_flos", SINGLE): 5.0,
        ("Summary", "epoch", SINGLE): 1.5,
    }
    assert task.times["train", "loss", 7] == (START + 7 * 1_500_000) // 1_000_000
    assert task.resent == 0
    assert clearml.problems == []
    await made.close()


async def test_what_no_chart_takes_is_a_line_of_the_console_and_no_zero(
    clearml: ClearMLServer,
) -> None:
    made = tracker()
    logs = {"loss": math.nan, "eval_loss": -math.inf, "huge": 1e39, "fine": 3.4e38, "text": "x"}
    await deliver(made, [emitted("on_log", 3, logs=logs)])
    task = clearml.tasks.only()
    assert task.scalars == {("train", "fine", 3): 3.4e38}
    assert [(line["level"], line["msg"]) for line in task.logs] == [
        ("warning", "train/loss = nan at iteration 3"),
        ("warning", "eval/loss = -inf at iteration 3"),
        ("warning", "train/huge = 1e+39 at iteration 3"),
    ]
    assert made.rejected == 1
    await made.close()


async def test_a_value_that_takes_the_place_of_another_is_said_once(
    clearml: ClearMLServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = tracker()
    records = [emitted("on_log", step, logs={"loss": float(step)}) for step in (1, 2)]
    with caplog.at_level(logging.WARNING):
        await deliver(made, records)
        assert caplog.records == []
        await deliver(made, records * 2)
    (said,) = caplog.records
    assert "last logged value of train/loss for step 1" in said.getMessage()
    await made.close()


async def test_arguments_and_the_models_configuration_are_there_without_tokens(
    clearml: ClearMLServer,
) -> None:
    args = {"nested": {"a": 1}, "betas": [0.9, 0.99], "fp16": False, "seed": 3}
    more = {"hub_token": "hf_secret", "none": None, "run_name": "r"}
    made = tracker(description(**args, **more), tags=["t1", "t2"])
    await deliver(made, training(1))
    fields = clearml.tasks.only().fields
    section = fields["hyperparams"]["Transformers"]
    shown = {name: (entry["value"], entry.get("type")) for name, entry in section.items()}
    assert shown.pop("_asynccb_run_")[0].startswith(made.run.key)
    assert shown == {
        "learning_rate": ("0.0005", "float"),
        "nested/a": ("1", "int"),
        "betas": ("[0.9, 0.99]", "list/float"),
        "fp16": ("False", "bool"),
        "seed": ("3", "int"),
        "none": ("", None),
        "run_name": ("r", "str"),
        "_ignore_hparams_ui_overrides_": ("True", "bool"),
        "_ignore_model_config_ui_overrides_": ("True", "bool"),
    }
    (configuration,) = fields["configuration"].values()
    assert configuration["name"] == "Model Configuration"
    assert json.loads(configuration["value"]) == {"hidden": 8, "learning_rate": 1.0}
    assert (fields["name"], fields["type"], fields["tags"]) == ("Trainer", "training", ["t1", "t2"])
    assert fields["script"]["entry_point"] == "train.py"
    assert "hf_secret" not in json.dumps(clearml.sent)
    await made.close()


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("finished", "completed"),
        ("failed", "failed"),
        ("killed", "stopped"),
        ("crashed", "failed"),
    ],
)
async def test_a_task_ends_as_its_training_does_and_twice_is_once(
    clearml: ClearMLServer, status: RunStatus, shown: str
) -> None:
    made = tracker()
    await deliver(made, training(1))
    again = revived(made, made.state())
    for one in (made, again):
        await one.finish(status)
        await one.close()
    assert set(clearml.tasks.only().transitions[1:]) == {shown}
    assert clearml.problems == []


async def test_two_trainings_that_make_a_project_at_once_share_it(clearml: ClearMLServer) -> None:
    clearml.faults = lambda request: (
        clearml.tasks.projects.setdefault("p1", "proj") and None  # another one is first
        if request.target.endswith("projects.create")
        else None
    )
    made = tracker()
    await deliver(made, training(1))
    assert clearml.tasks.only().fields["project"] == "p1"
    assert [problem[:16] for problem in clearml.problems] == ["projects.create:"]
    await made.close()


async def test_a_token_that_is_refused_is_renewed_and_costs_nothing(
    clearml: ClearMLServer,
) -> None:
    made = tracker()
    await deliver(made, training(3))
    clearml.revoke()
    await deliver(made, training(3, first=4))
    assert clearml.logins == 2
    assert [step for step, _ in clearml.tasks.only().series("train", "loss")] == [*range(1, 7)]
    await made.close()


async def test_a_token_is_renewed_before_it_ends(clearml: ClearMLServer) -> None:
    clearml.token_life = 300.0
    made = tracker()
    for number in range(1, 4):
        await deliver(made, training(1, first=number))
    assert clearml.logins >= 4
    assert clearml.problems == []
    await made.close()


async def test_a_token_that_is_given_is_used_and_asks_for_the_next(
    clearml: ClearMLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracker()
    await deliver(made, training(1))
    (token,) = clearml.tokens
    for name in ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLEARML_AUTH_TOKEN", token)
    other = tracker()
    await deliver(other, training(1))
    assert clearml.logins == 1
    await other._connection.renew()  # type: ignore[union-attr]
    assert clearml.logins == 2
    assert clearml.problems == []
    for one in (made, other):
        await one.close()


async def test_an_event_that_is_refused_is_set_aside_and_the_others_arrive(
    clearml: ClearMLServer,
) -> None:
    def refuse(request: Any) -> Answer | None:
        bad = b'"iter":2,"metric":"train","variant":"loss"' in request.body
        return Answer(500, b'{"meta":{"result_code":500,"result_subcode":100}}') if bad else None

    clearml.faults = refuse
    made = tracker()
    await play(made, training(4))
    await until_done(made.flush, tries=60)
    assert [step for step, _ in clearml.tasks.only().series("train", "loss")] == [1, 3, 4]
    assert made.rejected == 1
    (refusal,) = made.take_refusals()
    assert refusal.record.series == "loss"
    await made.close()


async def test_a_refusal_is_said_in_the_servers_words(
    clearml: ClearMLServer, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Any) -> Answer | None:
        if not request.target.endswith("tasks.edit_configuration"):
            return None
        meta = {"id": "1" * 32, "trx": "2" * 300, "result_code": 400, "result_subcode": 12}
        body = {"meta": {**meta, "result_msg": "Validation error (value)"}, "data": {}}
        return Answer(400, json.dumps(body).encode())

    clearml.faults = refuse
    made = tracker()
    await deliver(made, training(1))
    assert made.rejected == 1
    assert "the task's configuration" in caplog.text
    assert "answered with 400: Validation error (value) (400/12)" in caplog.text
    assert clearml.tasks.only().series("train", "loss") == [(1, 1.0)]
    await made.close()


async def test_a_proxy_s_page_in_another_encoding_is_waited_out(clearml: ClearMLServer) -> None:
    pages = [Answer(503, '{"meta": "momentanément"}'.encode("latin-1"))]
    clearml.faults = lambda request: pages.pop() if pages else None
    made = tracker()
    await play(made, training(2))
    assert await until_done(made.flush) == 1
    assert clearml.tasks.only().series("train", "loss") == [(1, 1.0), (2, 0.5)]
    await made.close()


async def test_batches_keep_the_vendors_limit(
    clearml: ClearMLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearml_outbox, "_SIZE", 20_000)
    made = tracker()
    await deliver(made, training(200))
    assert len(clearml.tasks.only().series("train", "loss")) == 200
    assert len(clearml.sizes) > 3
    assert max(clearml.sizes) < 21_000
    await made.close()


@pytest.mark.parametrize("state", ["gone", "published"])
async def test_a_task_that_takes_nothing_any_more_ends_the_tracker_and_keeps_the_records(
    clearml: ClearMLServer, state: str
) -> None:
    made = tracker()
    await deliver(made, training(1))
    task = clearml.tasks.only()
    if state == "gone":
        clearml.tasks.tasks.clear()
    else:
        task.fields["status"] = "published"
    await play(made, training(5, first=2))
    with pytest.raises(AccessError):
        await made.flush()
    assert made.rejected == 0
    await made.close()


async def test_a_server_that_is_no_api_server_is_named(
    clearml: ClearMLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clearml.faults = lambda request: Answer(200, b'{"version":"1.0"}')
    made = tracker()
    await play(made, training(1))
    with pytest.raises(AccessError, match="CLEARML_API_HOST"):
        await made.flush()
    clearml.faults = lambda request: Answer(200, b"<html>the pages</html>")
    with pytest.raises(TransientError, match="not JSON"):
        await made.flush()
    await made.close()


async def test_two_trackers_of_one_run_have_a_task_each(clearml: ClearMLServer) -> None:
    one = tracker(task="one")
    two = tracker(one.run, task="two")
    again = tracker(one.run, task="two")  # as a process that knows nothing of the others
    for made in (one, two, again):
        await deliver(made, training(2))
        await made.close()
    names = [task.fields["name"] for task in clearml.tasks.tasks.values()]
    assert names == ["one", "two"]


# -- tasks that are there already ----------------------------------------------------------------


async def test_a_task_of_this_process_is_logged_to_and_left_to_its_owner(
    clearml: ClearMLServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = tracker()
    await deliver(first, training(1))
    task = clearml.tasks.only()
    monkeypatch.setenv("CLEARML_PROC_MASTER_ID", f"{os.getpid()}:{task.id}")
    clearml.tasks.tasks[task.id].fields["hyperparams"] = {}
    here = {"host": "h", "pid": 5}
    one, two = (tracker(replace(description(seed=n), **here), log_model=True) for n in (1, 2))
    for made, root in ((one, tmp_path / "one"), (two, tmp_path / "two")):
        await deliver(made, training(2))
        await made.upload(await kept(root, "checkpoint-2", 2, {"w": root.name.encode()}))
        await made.upload(await kept(root, "artifacts", 3, {"a.csv": root.name.encode()}))
        await made.finish("finished")
    again = tracker(one.run)
    await deliver(again, training(1, first=3))
    elsewhere = tracker(replace(description(), host="h", pid=6))
    await deliver(elsewhere, training(1, first=9))
    assert clearml.tasks.only() is task
    assert task.status == "in_progress"
    assert [step for step, _ in task.series("train", "loss")] == [1, 2, 3, 9]
    assert [step for step, _ in task.series("train_2", "loss")] == [1, 2]
    assert task.parameters("Transformers_2")["seed"] == "2"
    assert "Model Configuration_2" in task.fields["configuration"]
    models = [model["name"] for model in clearml.tasks.models.values()]
    assert models == ["checkpoint-2", "checkpoint-2_2"]
    assert sorted(path.rpartition("/")[2] for path in clearml.files) == [
        "a.csv",
        "a.csv_2",
        "checkpoint-2.zip",
        "checkpoint-2_2.zip",
    ]
    for made in (first, one, two, again, elsewhere):
        await made.close()


async def test_a_task_that_is_named_is_continued_and_ended(clearml: ClearMLServer) -> None:
    first = tracker()
    await deliver(first, training(2))
    await first.finish("failed")
    task = clearml.tasks.only()
    second = tracker(task_id=task.id)
    await deliver(second, training(2, first=3))
    await second.finish("finished")
    assert task.transitions == ["in_progress", "failed", "in_progress", "completed"]
    assert [step for step, _ in task.series("train", "loss")] == [1, 2, 3, 4]
    for made in (first, second):
        await made.close()
    missing = tracker(task_id="none")
    await play(missing, training(1))
    with pytest.raises(AccessError, match="no ClearML task none"):
        await missing.flush()
    await missing.close()


# -- stops ---------------------------------------------------------------------------------------


def live(**settings: Any) -> Any:
    """Return a tracker that is in the companion of its training."""
    run = replace(description(), host=socket.gethostname(), pid=os.getppid())
    return tracker(run, **settings)


@pytest.mark.parametrize("stop", ["stopped", "stopping", "failed", "created"])
async def test_a_stop_of_the_servers_pages_asks_the_training_to_stop_and_is_left_so(
    clearml: ClearMLServer, stop: str
) -> None:
    made = live()
    asked: list[dict[str, bool]] = []
    made.request = lambda **flags: asked.append(flags)
    await deliver(made, training(1))
    await made.heartbeat()
    assert asked == []
    task = clearml.tasks.only()
    if stop == "stopping":
        task.fields["status_message"] = "stopping"
    else:
        task.fields |= {"status": stop, "status_message": "by ada"}
    for _ in range(2):
        await made.heartbeat()
    assert asked == [{"should_training_stop": True}]
    await deliver(made, training(1, first=2))
    await made.finish("finished")
    assert task.status == ("stopped" if stop == "stopping" else stop)
    assert task.pings == 1
    await made.close()


async def test_a_task_that_the_server_has_given_up_is_taken_up_again(
    clearml: ClearMLServer,
) -> None:
    made = live()
    made.request = lambda **flags: pytest.fail("nobody has asked for a stop")
    await deliver(made, training(1))
    task = clearml.tasks.only()
    forced = "Forced stop (non-responsive)"
    task.fields |= {"status": "stopped", "status_message": forced, "status_reason": forced}
    await made.heartbeat()
    assert task.status == "in_progress"
    await made.close()


async def test_only_the_companion_of_a_training_that_lives_says_so(clearml: ClearMLServer) -> None:
    made = tracker()  # as `asynccb sync` has it
    await deliver(made, training(1))
    before = len(clearml.sent)
    await made.heartbeat()
    assert len(clearml.sent) == before
    await made.close()


async def test_what_the_machine_uses_is_under_the_vendors_titles_and_names(
    clearml: ClearMLServer,
) -> None:
    made = live(system_metrics=1)
    await deliver(made, training(1))
    await made.heartbeat()
    assert [place for place in clearml.tasks.only().scalars if ":monitor" in place[0]] == []
    for _ in range(2):  # the share of the CPU is that since the sample before
        made._sampled -= 1.0
        await made.heartbeat()
    found = {place[:2] for place in clearml.tasks.only().scalars}
    machine = {name for title, name in found if title == ":monitor:machine"}
    assert machine == {"cpu_usage", "memory_used_gb", "memory_free_gb"}
    assert clearml.problems == []
    await made.close()


def test_gpus_are_under_the_vendors_names_at_the_seconds_since_the_beginning() -> None:
    sample = {
        "gpu.0.gpu": 97.0,
        "gpu.1.memoryAllocatedBytes": 2.0 * (1 << 30),
        "gpu.1.enforcedPowerLimitWatts": 700.0,
        "proc.memory.rssMB": 512.0,
        "memory_percent": 50.0,
    }
    found = list(machine_scalars(sample, 10 * 10**9, 15 * 10**9))
    assert [(s.title, s.series, s.iteration, s.value) for s in found] == [
        (":monitor:gpu", "gpu_0_utilization", 5, 97.0),
        (":monitor:gpu", "gpu_1_mem_used_gb", 5, 2.0),
        (":monitor:machine", "memory_used_gb", 5, 0.5),
    ]
    assert {s.time for s in found} == {15_000}


# -- models and artifacts --------------------------------------------------------------------------


async def test_a_checkpoint_is_one_file_and_a_model_and_is_stored_once(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    made = tracker(log_model=True)
    await deliver(made, [*training(1), emitted("on_save", 1)])
    content = {"model.bin": b"weights" * 1000, "sub/state.json": b"{}"}
    failing = [True]

    def lose(request: Any) -> Answer | None:
        if request.target.endswith("models.create") and failing.pop():
            clearml.tasks.act("models.create", json.loads(request.body))
            return Answer(502)
        return None

    clearml.faults = lose
    folder = await kept(tmp_path, "checkpoint-1", 1, content)
    await until_done(lambda: made.upload(folder))
    assert folder.pending() == []
    (model,) = clearml.tasks.models.values()
    task = clearml.tasks.only()
    assert task.fields["models"]["output"] == [{"name": "checkpoint-1", "model": model["id"]}]
    place = f"proj/Trainer.{task.id}/models/checkpoint-1.zip"
    assert model["uri"] == f"{clearml.url}/{place}"
    assert (model["framework"], model["ready"]) == ("PyTorch", False)
    with zipfile.ZipFile(io.BytesIO(clearml.files[place])) as package:
        assert {name: package.read(name) for name in package.namelist()} == content
    assert clearml.problems == []
    await made.close()


async def test_of_models_no_more_stay_than_the_training_keeps_checkpoints(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    made = tracker(description(save_total_limit=2), log_model=True)
    await deliver(made, training(1))
    for step in (5, 10, 15):
        await made.upload(await kept(tmp_path, f"checkpoint-{step}", step, {"w": b"x"}))
    names = [model["name"] for model in clearml.tasks.models.values()]
    assert names == ["checkpoint-10", "checkpoint-15"]
    assert sorted(path.rpartition("/")[2] for path in clearml.files) == [
        "checkpoint-10.zip",
        "checkpoint-15.zip",
    ]
    assert clearml.problems == []
    await made.close()


async def test_artifacts_are_files_with_their_sums_and_a_bad_one_harms_no_other(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    made = tracker(artifacts=tmp_path / "results", task="My / Task?")
    await deliver(made, training(1))
    refused: list[str] = []

    def refuse(request: Any) -> Answer | None:
        if b"/artifacts/bad" in request.body:
            refused.append(request.target)
            return Answer(413)
        return None

    clearml.faults = refuse
    files = {"a b.csv": b"1,2", "bad": b"", "deep/ü.txt": b"umlaut"}
    folder = await kept(tmp_path, "artifacts", 1, files)
    await made.upload(folder)
    assert folder.pending() == []
    artifacts = {a["key"]: a for a in clearml.tasks.only().fields["execution"]["artifacts"]}
    assert artifacts.keys() == {"a b.csv", "deep/ü.txt"}
    assert artifacts["a b.csv"]["content_size"] == 3
    assert artifacts["a b.csv"]["hash"] == hashlib.sha256(b"1,2").hexdigest()
    assert clearml.files[f"proj/My _ Task_.{clearml.tasks.only().id}/artifacts/deep/ü.txt"]
    assert made.rejected == len(refused) == 1
    await made.close()
