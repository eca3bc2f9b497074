"""Request by request: all that we send, the vendor's own package sends too."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from asynccb.trackers.wandb import files as wandb_files
from asynccb.trackers.wandb import stream as wandb_stream
from tests.trackers.lane import description, emitted, training
from tests.trackers.traffic import recorded
from tests.trackers.wandb.runs import deliver, tracker
from tests.trackers.wandb.server import WandbServer
from tests.trackers.wandb.test_files import kept
from tests.trackers.wandb.traffic import facts_of

OURS = [
    "config _wandb.e.<writer>.begin = object",
    *(
        f"config _wandb.e.<writer>.begin.{n} = number"
        for n in ("console", "history", "runtime", "step")
    ),
    "config _wandb.e.<writer>.training = string",
]
"""What no client but ours sends: where our part of a run begins, in the part that is kept for each
process that has written to the run."""


async def everything(tmp_path: Path, **settings: object) -> None:
    """Do whatever the tracker does, in one run."""
    live = replace(description(run_name="n"), host=socket.gethostname(), pid=os.getppid())
    made = tracker(live, log_model="checkpoint", system_metrics=1, **settings)
    await deliver(made, [*training(3), emitted("on_predict", 3, metrics={"test_loss": 1.0})])
    made.time = live.started
    await made.told("console", {"lines": [[False, 10**18, "out"], [True, 10**18, "err"]]}, 3)
    await made.told("histograms", {"step": 3, "parameters/w": [0.0, 1.0, *[2.0] * 64]}, 3)
    await deliver(made, [emitted("on_save", 3)])
    await made.upload(await kept(tmp_path, 3, large=b"x" * 5001, small=b"s"))
    await made.heartbeat()
    await made.heartbeat()
    made.settings = replace(made.settings, system_metrics=0.0)
    await made.heartbeat()
    made.describe(replace(live, script="changed.py"))
    await deliver(made, training(1, first=4))
    await made.finish("failed")
    await made.close()


async def test_every_operation_field_type_and_header_is_one_of_the_vendors(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_stream, "_PACE", 1e6)
    monkeypatch.setattr(wandb_files, "LARGE", 5000)
    monkeypatch.setattr(wandb_files, "PART", 2000)
    wandb.per_second = 10**6
    named = {"tags": ["t"], "notes": "o", "group": "g", "job_type": "j", "entity": "ent"}
    await everything(tmp_path / "one", run_id="r1", **named)
    await everything(tmp_path / "two", run_id="r1", resume="must")
    await everything(tmp_path / "three")
    assert wandb.refused == []
    strange = sorted(
        fact
        for fact in facts_of(wandb.sent) - recorded("wandb")
        # It goes in parts from 2 GiB on, which nobody has recorded: the document is the vendor's.
        if not fact.startswith("mutation CompleteMultipartUploadArtifact $")
        and "uploadPartsInput" not in fact
    )
    assert strange == OURS


def test_the_record_has_what_a_run_consists_of() -> None:
    facts = recorded("wandb")
    for part in (
        "mutation UpsertBucket",
        "query RunResumeStatus",
        "mutation CommitArtifact",
        "stream {}",
        "stream complete: bool",
        "PUT sends content-md5",
    ):
        assert part in facts
    assert "PUT sends authorization" not in facts
