"""
The vendor's own package against our server, and both clients on one run.

The first shows that the server is faithful: what it is strict about, the vendor's client keeps. The
second, that what we leave on a server is what the vendor's client goes on from, and the reverse.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from asynccb.trackers.wandb import stream as wandb_stream
from tests.support.launching import command
from tests.support.waiting import eventually
from tests.trackers.lane import description, training
from tests.trackers.traffic import recorded
from tests.trackers.wandb.runs import deliver, tracker
from tests.trackers.wandb.server import WandbServer
from tests.trackers.wandb.traffic import facts_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="needs the package wandb"
)


def vendor(mode: str, run_id: str, folder: Path) -> int:
    """Run the vendor's client, at the server that the environment names; return its exit status."""
    quiet = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "NO_PROXY": "*"}
    done = subprocess.run(
        command("trackers/wandb/vendor_program", mode, "proj", run_id),
        env={**os.environ, **quiet, "WANDB_DIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def test_the_vendors_client_finds_its_server_and_keeps_all_that_ours_insists_on(
    wandb: WandbServer, tmp_path: Path
) -> None:
    assert vendor("whole", "theirs", tmp_path) == 0
    run = wandb.run("proj")
    assert wandb.refused == []
    assert [line["train/global_step"] for line in run.history] == [1, 2, 3, 4, 5]
    assert [line["train/loss"] for line in run.history] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert run.state == "finished"
    assert run.summary["train_loss"] == 0.25
    assert run.config["model/num_parameters"] == {"value": 10}
    assert run.display_name == "vendor"
    assert [line.partition(" ")[2] for line in run.console] == ["a line of the console"]
    assert run.events
    (artifact,) = wandb.versions("model-vendor")
    assert artifact.contents == {"weights": b"weights" * 100}
    assert artifact.aliases == {"latest", "best"}
    assert not facts_of(wandb.sent) - recorded("wandb"), "traffic.py is to be run again"


def test_the_vendors_client_that_is_killed_leaves_a_run_that_crashes(
    wandb: WandbServer, tmp_path: Path
) -> None:
    wandb.crash_after = 1.0
    assert vendor("killed", "theirs", tmp_path) == -9
    assert eventually(lambda: wandb.run("proj").state == "crashed")


async def test_the_vendors_client_resumes_our_run_where_it_had_come(
    wandb: WandbServer, tmp_path: Path
) -> None:
    ours = tracker(description(), run_id="shared")
    await deliver(ours, training(3))
    await ours.finish("finished")
    await ours.close()
    assert vendor("resume", "shared", tmp_path) == 0
    run = wandb.run("proj")
    assert wandb.refused == []
    assert [line["_step"] for line in run.history] == list(range(8))
    assert run.config["hidden"] == {"value": 8}
    assert run.config["lr"] == {"value": 0.1}
    assert run.history[3]["_runtime"] > run.history[2]["_runtime"]


async def test_we_resume_the_vendors_run_where_it_had_come(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_stream, "_PACE", 1.0)
    assert vendor("whole", "shared", tmp_path) == 0
    theirs = wandb.run("proj")
    last = theirs.history[-1]
    theirs.times.clear()  # a resumed run begins later than in the second of the vendor's last burst
    ours = tracker(description(), run_id="shared", resume="must")
    await deliver(ours, training(3, first=6))
    await ours.finish("finished")
    await ours.close()
    run = wandb.run("proj")
    assert wandb.refused == []
    assert [line["_step"] for line in run.history] == list(range(8))
    assert [line["train/global_step"] for line in run.history] == list(range(1, 9))
    assert run.history[5]["_runtime"] > last["_runtime"]
    assert run.config["lr"] == {"value": 0.1}
    assert run.config["hidden"] == {"value": 8}
    assert run.summary["train_loss"] == 0.25
    assert run.state == "finished"
