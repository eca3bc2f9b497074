"""Checkpoints and models as W&B artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._journal.uploads import Kept
from asynccb._state.run_description import RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.trackers.wandb import WandbCallback
from asynccb.trackers.wandb import files as wandb_files
from asynccb.trackers.wandb import stream as wandb_stream
from tests.trackers import lane
from tests.trackers.lane import description, emitted, training
from tests.trackers.wandb.artifacts import Artifact
from tests.trackers.wandb.runs import deliver, revived, tracker
from tests.trackers.wandb.server import Fault, Sent, WandbServer

Make = Callable[..., WandbCallback]


@pytest.fixture
async def make(wandb: WandbServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(wandb_stream, "_PACE", 1e6)
    wandb.per_second = 10**6
    made: list[WandbCallback] = []

    def one(run: RunDescription, **settings: Any) -> WandbCallback:
        made.append(tracker(run, **{"log_model": "checkpoint", **settings}))
        return made[-1]

    yield one
    for each in made:
        await each.close()


async def kept(folder: Path, step: int = 2, **files: bytes) -> Kept:
    """Return a checkpoint as it waits to be uploaded; `a__b` stands for the path a/b."""
    return await lane.kept(
        WandbCallback(log_model="checkpoint"), folder, step, files or {"weights": b"abc"}
    )


def saving(step: int = 2) -> list[Any]:
    return [*training(step), emitted("on_save", step)]


def only(server: WandbServer) -> Artifact:
    (artifact,) = server.artifacts
    return artifact


async def test_a_checkpoint_becomes_a_version_with_aliases_metadata_and_its_files(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    made = make(description(run_name="my run/1"))
    await deliver(made, saving())
    folder = await kept(tmp_path, a=b"", b__c=b"xyz" * 1000)
    await made.upload(folder)
    artifact = only(wandb)
    assert artifact.name == "model-my-run-1"
    assert artifact.input["artifactTypeName"] == "model"
    assert artifact.state == "COMMITTED"
    assert artifact.aliases == {"latest", "epoch_0", "checkpoint_global_step_2"}
    assert artifact.contents == {"a": b"", "b/c": b"xyz" * 1000}
    assert artifact.metadata == {
        "train/loss": 0.5,
        "train/learning_rate": 0.5,
        "train/global_step": 2,
        "model/num_parameters": 10,
    }
    assert artifact.input["historyStep"] == 2
    assert folder.pending() == []
    assert wandb.refused == []


async def test_a_run_without_a_name_calls_its_artifact_by_its_id(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    made = make(description(run_name="out", output_dir="out"), run_id="r1")
    await deliver(made, saving())
    await made.upload(await kept(tmp_path))
    assert only(wandb).name == "model-r1"


async def test_aliases_move_to_the_newest_version(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    made = make(description())
    for step in (2, 4):
        await deliver(made, [*training(step), emitted("on_save", step)])
        await made.upload(await kept(tmp_path, step, weights=str(step).encode()))
    first, second = wandb.artifacts
    assert first.aliases == {"checkpoint_global_step_2"}
    assert second.aliases == {"latest", "epoch_0", "checkpoint_global_step_4"}


async def test_a_version_waits_until_what_was_logged_before_it_is_known(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    import anyio

    made = make(description())
    folder = await kept(tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(made.upload, folder)
        await anyio.sleep(0.2)
        assert wandb.sent == []
        await deliver(made, saving())
    assert only(wandb).metadata["train/loss"] == 0.5


async def test_every_request_may_fail_and_lose_its_answer_and_one_version_is_there(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    seen: dict[str, int] = {}

    def fail_then_lose(request: Sent) -> Fault | None:
        if b"Artifact" not in request.body and request.method != "PUT":
            return None
        what = f"{request.method} {request.path.partition('?')[0]} "
        what += request.json["operationName"] if request.method == "POST" else ""
        seen[what] = seen.get(what, 0) + 1
        return {1: Fault(503, b"down"), 2: Fault(obeys=True)}.get(seen[what])

    run = description()
    made = make(run)
    await deliver(made, saving())
    wandb.faults = fail_then_lose
    folder = await kept(tmp_path, a=b"1", b=b"2" * 5000)
    failures = 0
    while folder.pending():
        try:
            await made.upload(folder)
        except TransientError:
            failures += 1
            assert failures < 30
            made = make(run) if failures % 3 == 0 else made  # a companion that was killed
            made.restore(made.state()["attributes"])
            if failures % 3 == 0:
                await deliver(made, saving())
    assert failures == 2 * len(seen)
    assert only(wandb).contents == {"a": b"1", "b": b"2" * 5000}
    assert only(wandb).state == "COMMITTED"


async def test_a_tracker_made_again_from_its_cursor_knows_what_a_checkpoint_was(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    run = description()
    made = make(run)
    await deliver(made, saving())
    again = revived(made.state(), run)
    await deliver(again, [emitted("on_log", 3, logs={"loss": 9.0})])
    await again.upload(await kept(tmp_path))
    await again.close()
    assert only(wandb).metadata["train/loss"] == 0.5


async def test_the_same_files_again_send_nothing_and_move_the_aliases(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    made = make(description())
    for step in (2, 4):
        await deliver(made, [*training(step), emitted("on_save", step)])
        await made.upload(await kept(tmp_path, step))
    assert len([s for s in wandb.sent if s.method == "PUT"]) == 2  # the file and the manifest
    assert "checkpoint_global_step_4" in only(wandb).aliases


async def test_a_large_file_goes_in_parts(
    wandb: WandbServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_files, "LARGE", 5000)
    monkeypatch.setattr(wandb_files, "PART", 2000)
    made = make(description())
    await deliver(made, saving())
    content = os.urandom(5001)
    await made.upload(await kept(tmp_path, large=content, small=b"s"))
    assert only(wandb).contents == {"large": content, "small": b"s"}
    puts = [len(s.body) for s in wandb.sent if s.method == "PUT"]
    assert puts[:3] == [2000, 2000, 1001]
    assert wandb.refused == []


async def test_an_address_whose_signature_has_expired_is_asked_for_again(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    expired = [Fault(403, b"expired")]
    wandb.faults = lambda s: expired.pop() if s.method == "PUT" and expired else None
    made = make(description())
    await deliver(made, saving())
    folder = await kept(tmp_path)
    with pytest.raises(TransientError):
        await made.upload(folder)
    await made.upload(folder)
    assert only(wandb).state == "COMMITTED"


async def test_a_storage_that_never_takes_it_costs_the_artifact_alone(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    wandb.faults = lambda s: Fault(403, b"never") if s.method == "PUT" else None
    made = make(description())
    await deliver(made, saving())
    folder = await kept(tmp_path)
    for _ in range(wandb_files._MOST_REFUSALS - 1):
        with pytest.raises(TransientError):
            await made.upload(folder)
    await made.upload(folder)
    assert folder.pending() == []
    assert made.rejected == 1
    await deliver(made, training(1, first=3))
    assert len(wandb.run().history) == 3


async def test_an_artifact_that_the_server_refuses_is_rejected(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    wandb.faults = lambda s: (
        Fault(200, json.dumps({"errors": [{"message": "quota"}]}).encode())
        if b"createArtifact(" in s.body
        else None
    )
    made = make(description())
    await deliver(made, saving())
    await made.upload(await kept(tmp_path))
    assert made.rejected == 1
    assert wandb.artifacts == []


async def test_the_final_model_says_so_or_what_the_best_one_scored(
    wandb: WandbServer, make: Make
) -> None:
    from asynccb.trackers.wandb.models import Models

    for loads_best, operations, figures in (
        (False, 7.0, {"train/loss": 0.5, "train/learning_rate": 0.5, "train/global_step": 2}),
        (True, 7.0, {"eval/accuracy": 0.9, "train/total_floss": 7.0}),
        (True, 0, {"eval/accuracy": 0.9}),  # 0 operations: their number is unknown
    ):
        args = {"load_best_model_at_end": loads_best, "metric_for_best_model": "eval_accuracy"}
        made = make(description(**args))
        await deliver(made, training(2))
        models: Models = made._models
        state = TrainerState(global_step=2, best_metric=0.9, total_flos=operations)
        await made.on_train_end(made.run.args, state, None)
        await made.flush()
        about = models.described["final_model"]
        assert about["aliases"] == ["final_model"]
        assert about["metadata"] == {**figures, "model/num_parameters": 10, "final_model": True}


async def test_with_end_no_checkpoint_is_uploaded_and_with_false_nothing_is(make: Make) -> None:
    assert set(make(description(), log_model="end").uploads) == {Event.TRAIN_BEGIN, Event.TRAIN_END}
    assert set(make(description(), log_model="false").uploads) == set()


async def test_a_model_that_cannot_be_found_is_rejected_by_name(make: Make, tmp_path: Path) -> None:
    made = make(description())
    state: Any = TrainerState(global_step=1)
    assert made.files(Event.SAVE, description().args, state) is None
    args = description(output_dir=str(tmp_path)).args
    assert made.files(Event.TRAIN_END, args, state) is None
    assert made.rejected == 2


async def test_access_that_is_refused_ends_the_tracker_at_an_upload_too(
    wandb: WandbServer, make: Make, tmp_path: Path
) -> None:
    made = make(description())
    await deliver(made, saving())
    wandb.faults = lambda s: Fault(401, b"no") if s.path == "/graphql" else None
    with pytest.raises(AccessError, match="WANDB_API_KEY"):
        await made.upload(await kept(tmp_path))


def test_names_hold_what_the_server_takes_and_stay_apart() -> None:
    name = wandb_files.artifact_name
    assert name("model-a b/ü.1_x") == "model-a-b--.1_x"
    long, other = name("x" * 200), name("x" * 201)
    assert len(long) == len(other) == 128
    assert long != other
