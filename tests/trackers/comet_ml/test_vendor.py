"""
The vendor's own package: its uploader takes our archives, and its client goes on with our runs.

That it works against our server shows, too, that this is faithful in what it is strict about.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import command
from tests.trackers.comet_ml.runs import kept, tracker
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.comet_ml.traffic import facts_of
from tests.trackers.lane import deliver, description, emitted, training
from tests.trackers.traffic import recorded

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("comet_ml") is None, reason="needs the package comet_ml"
)


def vendor(*arguments: str, status: int = 0) -> str:
    """Run the vendor's program at the server that the environment names; return what it says."""
    done = subprocess.run(
        arguments,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said


def comet_upload(*archives: Path, status: int = 0) -> str:
    program = "comet_ml.scripts.comet_upload"
    return vendor(sys.executable, "-m", program, *map(str, archives), status=status)


async def test_comet_upload_takes_our_archives_whole_and_in_turn(
    comet: CometServer, tmp_path: Path
) -> None:
    run = description(run_name="mine", lists=[1, 2], nothing=None, on=True)
    first = tracker(run, online=False, tags=["t1"], workspace="alice")
    odd = {"loss": float("nan"), "up": float("inf"), "text": "a text"}
    await deliver(first, [*training(2000), emitted("on_log", 2001, logs=odd)])
    await first.told("graph", {"graph": "Linear()"}, 0)
    await first.flush()
    await first.upload(kept(tmp_path, 3, weights_bin=b"w" * 100, sub__README=b"r"))
    first.time = emitted("end", 2002).time
    await first.finish("failed")
    second = tracker(run, online=False, tags=["t1"], workspace="alice")
    assert second.resume(first.state()["attributes"])
    await deliver(second, training(3, first=2002))
    second.time = emitted("end", 2005).time
    await second.finish("finished")
    archives = [Path(made.address or "") for made in (first, second)]
    said = comet_upload(*reversed(archives), status=1)
    assert "experiment was not found" in said  # the later one waits for the first
    said += comet_upload(*archives, status=1)
    assert "already" in said  # and the first goes there once
    assert "Error processing" not in said
    assert "is not valid" not in said
    experiment = comet.experiment()
    assert (experiment.key, experiment.project) == (run.key, "proj")
    assert (experiment.workspace, experiment.tags) == ("alice", {"t1"})
    assert experiment.points("train/loss") == [
        *((step, 1 / step) for step in range(1, 2001)),
        (2001, "NaN"),
        *((step, 1 / step) for step in range(2002, 2005)),
    ]
    assert experiment.points("train/up") == [(2001, "Infinity")]
    assert experiment.points("train/text") == [(2001, "a text")]
    assert experiment.metrics[0]["timestamp"] == emitted("", 1).time // 10**6
    assert experiment.parameters["args|learning_rate"] == 5e-4
    assert experiment.parameters["args|lists"] == [1, 2]
    assert experiment.parameters["args|on"] is True
    assert experiment.parameters["config|hidden"] == 8
    assert experiment.others["Name"] == "mine"
    assert experiment.written["graph"]["graph"] == "Linear()"
    assert experiment.written["system-details"]["hostname"] == "node7"
    assert {name: content for name, (_, content) in experiment.assets.items()} == {
        "out/weights.bin": b"w" * 100,
        "out/sub/README": b"r",
    }
    assert experiment.alive is False


async def test_the_vendors_client_goes_on_with_our_experiment(comet: CometServer) -> None:
    comet.beat = 1.0
    ours = tracker()
    await deliver(ours, training(3))
    await ours.finish("finished")
    await ours.close()
    comet.sent.clear()
    vendor(*command("trackers/comet_ml/vendor_program", "get", ours.run.key))
    experiment = comet.experiment()
    assert comet.refused == []
    assert [step for step, _ in experiment.points("train/loss")] == [1, 2, 3, 1, 2, 3, 4, 5]
    assert (experiment.parameters["args|lr"], experiment.parameters["config|hidden"]) == (0.1, 8)
    assert (experiment.sessions, experiment.status) == (2, "finished")
    assert set(experiment.assets) == {"out/weights.bin", "out/README"}
    assert not facts_of(comet.sent) - recorded("comet_ml"), "traffic.py is to be run again"
