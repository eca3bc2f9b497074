"""
The vendor's own package against our server, on our run, on our files, and beside our traffic.

The first shows that the server is faithful: what it is strict about, the vendor's client keeps. The
others, that what we leave on a server or in a folder is what the vendor's client goes on from.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from asynccb.trackers.swanlab import files as swanlab_files
from tests.trackers.lane import START, deliver, description, emitted, play, training, until_done
from tests.trackers.scripted import Request
from tests.trackers.swanlab.runs import kept, tracker
from tests.trackers.swanlab.server import Fault, SwanLabServer
from tests.trackers.swanlab.traffic import facts_of, vendor
from tests.trackers.traffic import recorded

needs_vendor = pytest.mark.skipif(
    importlib.util.find_spec("swanlab") is None, reason="needs the package swanlab"
)


@needs_vendor
async def test_the_vendors_client_keeps_what_our_server_insists_on_and_we_resume_its_run(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    vendor("whole", "theirs", tmp_path, swanlab)
    run = swanlab.run("proj")
    assert swanlab.problems == []
    assert run.state == "FINISHED"
    assert run.values("train/loss") == [(step, 1 / step) for step in range(1, 6)]
    assert run.config == {"lr": 0.1, "nest": {"a": 1}, "added": 5}
    assert run.files == {"weights.bin": b"weights" * 100}
    assert not facts_of(swanlab.requests) - recorded("swanlab"), "traffic.py is to be run again"
    lines, columns = max(run.lines), dict(run.columns)
    ours = tracker(run_id="theirs", resume="must")
    await deliver(ours, training(3, first=6))
    await ours.finish("failed")
    await ours.close()
    assert swanlab.problems == []
    assert [step for step, _ in run.values("train/loss")] == list(range(1, 9))
    assert run.columns["train/loss"] is columns["train/loss"]  # it is not declared again
    assert (max(run.lines), run.lines[lines + 1]["level"]) == (lines + 1, "ERROR")
    assert run.state == "CRASHED"


@needs_vendor
async def test_a_quota_that_is_used_up_costs_the_vendors_client_a_batch_and_us_none(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    def misbehave(request: Request) -> Fault | None:
        is_first = request.target.endswith("/house/metrics") and b'"scalar"' in request.body
        return left.pop() if is_first and left else None

    swanlab.faults = misbehave
    left = [Fault(429)]
    vendor("whole", "theirs", tmp_path, swanlab)
    left = [Fault(429)]
    ours = tracker(run_id="ours")
    await play(ours, training(5))
    assert await until_done(ours.flush) == 1
    await ours.close()
    assert len(swanlab.runs["proj", "theirs"].values("train/loss")) < 5
    assert len(swanlab.runs["proj", "ours"].values("train/loss")) == 5


@needs_vendor
async def test_the_vendors_client_resumes_our_run_where_it_had_come(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    ours = tracker(run_id="shared")
    await deliver(ours, training(3))
    await ours.finish("finished")
    await ours.close()
    vendor("resume", "shared", tmp_path, swanlab)
    run = swanlab.run("proj")
    assert swanlab.problems == []
    assert [step for step, _ in run.values("train/loss")] == [1, 2, 3, 10, 11, 12, 13, 14]
    assert (run.opened, run.state, run.changed) == (2, "FINISHED", [])


@needs_vendor
async def test_the_vendors_sync_uploads_what_local_mode_has_written(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    about = {"description": "d", "tags": ["t1"], "group": "g", "job_type": "j", "name": "mine"}
    ours = tracker(mode="local", log_model="checkpoint", **about)
    await deliver(ours, [*training(3), emitted("on_log", 3, logs={"eval_f1": float("nan")})])
    await ours.upload(await kept(tmp_path, 3, weights=b"w" * 5000, opt__state=b"s"))
    ours.time = emitted("end", 3).time
    await ours.finish("failed")
    await ours.close()
    assert swanlab.requests == []
    assert ours.address is not None
    vendor("sync", ours.address, tmp_path, swanlab)
    run = swanlab.run("proj")
    assert swanlab.problems == []
    assert run.values("train/loss") == [(step, 1 / step) for step in range(1, 4)]
    assert run.values("eval/f1") == [(3, "nan")]
    row = run.rows["train/loss", 3]
    assert row["create_time"].startswith("2026-11-18T11:06:40.0045")
    assert run.config["FRAMEWORK"] == "\N{HUGGING FACE}transformers"
    assert run.config["hidden"] == 8
    assert run.profile["metadata"]["runtime"]["hostname"] == "node7"
    assert run.files == {"checkpoint-3/weights": b"w" * 5000, "checkpoint-3/opt/state": b"s"}
    assert run.state == "CRASHED"
    assert [line["message"] for line in run.lines.values()] == ["The training ended as failed."]
    told = {key: run.about.get(key) for key in ("name", "description", "cluster", "job", "labels")}
    assert told == {
        "name": "mine",
        "description": "d",
        "cluster": "g",
        "job": "j",
        "labels": [{"name": "t1"}],
    }


async def test_every_request_field_kind_and_header_is_one_of_the_vendors(
    swanlab: SwanLabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swanlab_files, "LARGE", 5000)
    monkeypatch.setattr(swanlab_files, "PART", 2000)
    about = {"description": "d", "tags": ["t1"], "group": "g", "job_type": "j"}
    live = replace(description(run_name="n"), host=socket.gethostname(), pid=os.getppid())
    for number, legacy in enumerate((False, True)):
        swanlab.legacy = legacy
        project = f"proj{number}"
        for given in ({"run_id": "r"}, {"run_id": "r", "resume": "must"}):
            made = tracker(live, project=project, **given, **about)
            await deliver(made, [*training(3), emitted("on_predict", 3, metrics={"test_f": 1.0})])
            folder = tmp_path / str(len(swanlab.requests))
            await made.told("console", {"lines": [[False, START, "out"]]}, 3)
            await made.upload(await kept(folder, large=b"x" * 5001, small=b"s"))
            await made.heartbeat()
            await made.finish("killed")
            await made.close()
        assert swanlab.run(project).files["checkpoint-2/large"] == b"x" * 5001
        assert swanlab.run(project).early == set()
        sampled = [key for key in swanlab.run(project).columns if key.startswith("__swanlab__")]
        assert bool(sampled) is not legacy
    assert swanlab.problems == []
    kinds = ".config.<key>.value ="  # those of the values are the user's
    strange = facts_of(swanlab.requests) - recorded("swanlab")
    assert sorted(fact for fact in strange if kinds not in fact) == []
