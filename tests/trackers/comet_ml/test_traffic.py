"""Request by request: all that we send, the vendor's own package sends too."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from tests.trackers.comet_ml.runs import kept, tracker
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.comet_ml.traffic import facts_of
from tests.trackers.lane import deliver, description, emitted, training
from tests.trackers.traffic import recorded


async def everything(tmp_path: Path, *, status: str, **settings: object) -> None:
    """Do whatever the tracker does, in one run."""
    live = replace(description(run_name="n"), host=socket.gethostname(), pid=os.getppid())
    made = tracker(live, tags=["t"], **settings)
    odd = emitted("on_log", 3, logs={"loss": float("nan"), "text": "a", "up": float("inf")})
    await deliver(made, [*training(3), odd, emitted("on_predict", 3, metrics={"test_loss": 1.0})])
    await made.told("graph", {"graph": "Linear()"}, 0)
    await made.flush()
    await made.upload(kept(tmp_path, 3, weights_bin=b"w", README=b"r"))
    await made.heartbeat()
    made.time = emitted("end", 4).time
    await made.finish(status)  # type: ignore[arg-type]
    await made.close()


async def test_every_request_field_type_and_header_is_one_of_the_vendors(
    comet: CometServer, tmp_path: Path
) -> None:
    comet.stops = True
    await everything(tmp_path / "one", status="failed", experiment_key="0" * 32)
    await everything(tmp_path / "two", status="finished", experiment_key="0" * 32, mode="get")
    assert comet.refused == []
    assert sorted(facts_of(comet.sent) - recorded("comet_ml")) == []


def test_the_record_has_what_a_run_consists_of() -> None:
    facts = recorded("comet_ml")
    for fact in (
        "POST /clientlib/logger/add/run .getOrCreateEnabled = boolean",
        "POST /clientlib/logger/get/run .previousExperiment = string",
        "POST /clientlib/batch/logger/experiment/metric content-encoding: gzip",
        "POST /clientlib/batch/logger/experiment/metric .values[].metricValue = string",
        "POST /api/rest/v2/write/experiment/update-status .hasCrashed = boolean",
        "GET /clientlib/rpc/get-pending-rpcs ?experimentKey=",
        'POST /clientlib/asset/upload form-data; name="file"',
    ):
        assert fact in facts
