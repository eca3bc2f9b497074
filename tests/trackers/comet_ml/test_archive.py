"""Offline archives: each message once, whole or not at all, and whoever dies meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import zipfile
from pathlib import Path

import pytest

from asynccb._cli import main
from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.comet_ml import CometCallback
from tests.faults.kills import children, journaled
from tests.support.launching import launch
from tests.support.waiting import eventually, is_gone
from tests.trackers.comet_ml.archives import Archive, archived
from tests.trackers.comet_ml.runs import kept, tracker
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.lane import deliver, description, emitted, play, revived, training

pytestmark = pytest.mark.usefixtures("comet")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, comet: CometServer) -> None:
    monkeypatch.setenv("COMET_START_ONLINE", "0")


async def end(made: CometCallback, step: int = 99) -> None:
    made.time = emitted("end", step).time
    await made.finish("finished")
    await made.close()


def only() -> Archive:
    (archive,) = archived(Path(".cometml-runs"))
    return archive


def losses(archive: Archive) -> list[tuple[int, float]]:
    found = [metric for metric in archive.metrics if metric["metricName"] == "train/loss"]
    return [(metric["step"], metric["metricValue"]) for metric in found]


def expected(last: int, first: int = 1) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(first, last + 1)]


async def test_an_archive_says_what_it_is_of_and_nothing_is_left_beside_it(
    comet: CometServer, tmp_path: Path
) -> None:
    made = tracker(tags=["t"])
    await deliver(made, training(3))
    assert archived(Path(".cometml-runs")) == []
    await end(made)
    key = made.run.key
    assert only().about == {
        "offline_id": key,
        "project_name": "proj",
        "workspace": None,
        "start_time": made.run.started // 10**6,
        "stop_time": emitted("", 99).time // 10**6,
        "tags": ["t"],
        "resume_strategy": "get_or_create",
        "customer_error_reported": False,
        "customer_error_message": None,
        "user_provided_experiment_key": False,
        "comet_start_sourced": True,
    }
    assert losses(only()) == expected(3)
    assert os.listdir(".cometml-runs") == [f"{key}.zip"]
    assert comet.sent == []


async def test_runs_with_one_given_key_have_an_archive_each() -> None:
    for number in range(2):
        made = tracker(experiment_key="a" * 32)
        await deliver(made, training(3, first=1 + 3 * number))
        await end(made)
    archives = archived(Path(".cometml-runs"))
    assert sorted(losses(archive)[0][0] for archive in archives) == [1, 4]
    assert {archive.about["user_provided_experiment_key"] for archive in archives} == {True}


async def test_what_a_crash_left_behind_the_acknowledged_part_is_written_over() -> None:
    made = tracker()
    await deliver(made, training(3))
    state = made.state()
    await deliver(made, training(5, first=4))  # and its cursor is never saved
    again = revived(made, state)
    await deliver(again, training(2, first=4))
    await end(again)
    assert losses(only()) == expected(5)


async def test_an_archive_that_was_made_before_a_crash_is_not_made_worse(tmp_path: Path) -> None:
    made = tracker()
    await deliver(made, training(3))
    state = made.state()
    await deliver(made, training(3, first=4))
    await end(made)
    again = revived(made, state)
    await deliver(again, training(3, first=4))
    await end(again)
    assert losses(only()) == expected(6)


async def test_half_removed_parts_of_a_made_archive_are_no_new_one() -> None:
    made = tracker()
    await deliver(made, training(3))
    await end(made)
    os.mkdir(f".cometml-runs/{made.run.key}.packed")  # as after a crash within the removal
    again = revived(made, made.state())
    await end(again)
    assert losses(only()) == expected(3)


async def test_parts_that_somebody_has_removed_are_said() -> None:
    made = tracker()
    await deliver(made, training(3))
    shutil.rmtree(".cometml-runs")
    await play(made, training(1, first=4))
    with pytest.raises(AccessError, match="removed"):
        await made.flush()


async def test_a_folder_that_cannot_be_is_said_with_what_to_set() -> None:
    os.symlink("nowhere/at/all", "taken")
    made = tracker(offline_directory="taken")
    await play(made, training(1))
    with pytest.raises(AccessError, match="COMET_OFFLINE_DIRECTORY"):
        await made.flush()


async def test_a_full_disk_while_it_is_packed_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tracker()
    await deliver(made, training(3))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(TransientError, match="No space"):
            await made.finish("finished")
    await end(made)
    assert losses(only()) == expected(3)


async def test_files_go_in_once_however_often_they_are_uploaded(tmp_path: Path) -> None:
    made = tracker(log_assets=True)
    await deliver(made, training(1))
    for _ in range(2):
        await made.upload(kept(tmp_path, 3, weights_bin=b"w" * 10, sub__README=b"r"))
    await end(made)
    archive = only()
    stored = {
        upload["additional_params"]["fileName"]: archive.assets[upload["file_path"]]
        for upload in archive.of("file_upload")
    }
    assert len(archive.of("file_upload")) == 2
    assert stored == {"out/weights.bin": b"w" * 10, "out/sub/README": b"r"}


async def test_a_file_that_is_gone_is_rejected_alone(tmp_path: Path) -> None:
    made = tracker(log_assets=True)
    await deliver(made, training(1))
    files = kept(tmp_path, 3, gone=b"g", here=b"h")
    gone, _ = files.pending()
    gone.path.rename(tmp_path / "elsewhere")
    gone.path.symlink_to("nowhere")
    await made.upload(files)
    await end(made)
    assert made.rejected == 1
    assert list(only().assets.values()) == [b"h"]
    assert files.pending() == []


async def test_lists_have_a_message_of_their_own_kind_as_the_vendors_schema_wants() -> None:
    made = tracker(description(lists=[1, 2], odd=[[1]], nothing=None))
    await deliver(made, training(1))
    await end(made)
    told = only().of("parameter_msg")
    lists = {p["params"]["paramName"]: p["params"]["paramValue"] for p in told if "params" in p}
    single = {p["param"]["paramName"]: p["param"]["paramValue"] for p in told if "param" in p}
    assert lists == {"args|lists": [1, 2]}
    assert (single["args|odd"], single["args|nothing"]) == ("[[1]]", None)


def test_a_killed_training_leaves_an_archive_that_says_so(tmp_path: Path) -> None:
    with launch("emit_to", "CometCallback", tmp_path / "runs", 3000) as trainer:
        assert trainer.stdout is not None
        emitted_steps = 0
        for line in trainer.stdout:
            emitted_steps = int(line)
            if emitted_steps == 400:
                trainer.kill()
                break
    archive = eventually(lambda: archived(tmp_path / ".cometml-runs"), 30.0)[0]
    assert archive.error == "the training died without a word"
    assert losses(archive) == expected(len(losses(archive)))
    assert len(losses(archive)) >= emitted_steps


def test_a_training_that_died_with_its_companion_is_archived_by_sync(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with launch("emit_to", "CometCallback", runs, 100_000) as trainer:
        assert trainer.stdout is not None
        for line in trainer.stdout:
            if int(line) % 100 == 0 and journaled(runs) > 300:
                companions = children(trainer.pid)
                trainer.kill()
                for pid in companions:
                    os.kill(pid, signal.SIGKILL)
                    eventually(lambda pid=pid: is_gone(pid))
                break
    count = journaled(runs)
    assert archived(tmp_path / ".cometml-runs") == []
    assert main(["sync", str(runs)]) == 0
    (archive,) = archived(tmp_path / ".cometml-runs")
    assert losses(archive) == expected(count)
    assert archive.error == "the training died without a word"
