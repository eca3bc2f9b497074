"""
Request by request: all that we send, the vendor's own package sends too.

What it sends for the same with other requests is named here; those are checked by its own request
classes, as every other one is, in `tests/trackers/clearml/server.py`. The last test has its package
read what we have left on a server.
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from tests.support.launching import command
from tests.trackers.clearml.runs import kept, tracker
from tests.trackers.clearml.server import ClearMLServer
from tests.trackers.clearml.traffic import facts_of
from tests.trackers.lane import deliver, description, emitted, training
from tests.trackers.traffic import recorded

OURS = {
    "tasks.edit_hyper_params": "theirs, tasks.edit, takes all sections, those of others too",
    "tasks.edit_configuration": "likewise",
    "tasks.ping": "comes each 30 s, and the recorded runs were shorter",
    "tasks.stopped": "of a run that a signal has ended",
    "models.get_all": "finds a model whose making was answered with nothing",
    "models.delete": "a model beyond save_total_limit",
    "file DELETE": "its file",
    "tasks.get_all: _any_": "finds a task whose making was answered with nothing",
    "tasks.get_all: project": "looks in its project",
    "tasks.get_all: name": "and among those of its name",
    "tasks.create: script": "theirs is in a tasks.edit behind it",
    "tasks.create: tags": "likewise",
    "models.create: comment": "theirs is in a models.edit behind it",
    "models.create: framework": "likewise",
    "models.create: task": "likewise",
    "tasks.add_or_update_model: iteration": "theirs is in models.edit",
    "tasks.add_or_update_artifacts: artifacts[].mode": "the class's default, by which it is known",
}
"""What no recorded run of the vendor's has, and why we send it."""


async def everything(tmp_path: Path) -> None:
    """Do whatever the tracker does, in three runs."""
    live = replace(description(save_total_limit=1), host=socket.gethostname(), pid=os.getppid())
    made = tracker(live, log_model=True, artifacts=tmp_path, tags=["t1"], console=True)
    records = [emitted("on_log", 3, logs={"epoch": 1.0, "eval_loss": 0.5, "nan": float("nan")})]
    await deliver(made, [*training(2), *records])
    await made.told("console", {"lines": [[False, 10**18, "out"], [True, 10**18, "err"]]}, 3)
    await made.heartbeat()
    for step in (5, 10):
        await made.upload(await kept(tmp_path / "a", f"checkpoint-{step}", step, {"w": b"x"}))
    await made.upload(await kept(tmp_path / "b", "artifacts", 11, {"a.csv": b"1,2"}))
    await made.upload(await kept(tmp_path / "c", "checkpoint-10", 12, {"w": b"y"}))
    await made.finish("finished")
    await made.close()
    for status in ("failed", "killed"):
        other = tracker()
        await deliver(other, training(1))
        await other.finish(status)  # type: ignore[arg-type]
        await other.close()


async def test_every_operation_field_type_and_header_is_one_of_the_vendors(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    await everything(tmp_path)
    assert clearml.problems == []
    assert clearml.http is not None
    strange = facts_of(clearml.http.requests) - recorded("clearml")
    explained = {reason: [f for f in strange if _is_of(f, reason)] for reason in OURS}
    assert [
        fact for fact in strange if not any(fact in facts for facts in explained.values())
    ] == []
    assert [reason for reason, facts in explained.items() if not facts] == []


def _is_of(fact: str, reason: str) -> bool:
    return re.match(re.escape(reason) + r"(\W|$)", fact) is not None


def test_the_record_has_what_a_run_consists_of() -> None:
    facts = recorded("clearml")
    for part in (
        "tasks.create",
        "tasks.started",
        "tasks.failed",
        "events.add_batch training_stats_scalar: value = number",
        "auth.login is authorized by Basic",
        "file POST is authorized by Bearer",
    ):
        assert part in facts
    assert not [fact for fact in facts if "method" in fact]


async def test_the_vendors_package_reads_what_we_have_logged(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    run = description(seed=3, fp16=True)
    made = tracker(run, log_model=True, artifacts=tmp_path, task="ours", tags=["t"])
    await deliver(made, [*training(3), emitted("on_log", 4, logs={"train_loss": 0.25})])
    files = {"model.bin": b"weights", "deep/state.json": b"{}"}
    await made.upload(await kept(tmp_path, "checkpoint-3", 3, files))
    await made.upload(await kept(tmp_path, "artifacts", 4, {"result.csv": b"1,2"}))
    await made.finish("finished")
    await made.close()
    done = await anyio.run_process(
        command("trackers/clearml/vendor_program", "read", clearml.tasks.only().id),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (read["status"], read["name"], read["project"]) == ("completed", "ours", "proj")
    assert read["tags"] == ["t"]
    parameters = {k.removeprefix("Transformers/"): v for k, v in read["parameters"].items()}
    assert {name: parameters[name] for name in ("learning_rate", "seed", "fp16")} == {
        "learning_rate": 5e-4,
        "seed": 3,
        "fp16": True,
    }
    assert read["configuration"] == {"hidden": 8, "learning_rate": 1.0}
    assert read["artifacts"] == {"result.csv": "1,2"}
    assert (read["model"], read["framework"]) == ("checkpoint-3", "PyTorch")
    assert read["files"] == {"model.bin": "weights", "state.json": "{}"}
    loss = read["scalars"]["train"]["loss"]
    assert (loss["x"], loss["y"]) == ([1, 2, 3], [1.0, 0.5, 1 / 3])
    assert read["singles"] == {"train_loss": 0.25}
    assert clearml.problems == []
