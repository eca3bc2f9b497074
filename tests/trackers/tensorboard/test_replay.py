"""What is in the files after crashes, full disks and people who tidy up."""

import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.tensorboard import TensorBoardCallback
from asynccb.trackers.tensorboard.event_file import file_name
from asynccb.trackers.tensorboard.opening import RUN, Claim, take
from tests.trackers.tensorboard.event_files import Lane, contents, describe, files, points, training

HISTORY = [*training(0, 6), *training(4, 8), ("on_log", 2, {"loss": 3.0}), *training(0, 3)]
"""A training, its resumption at step 4, a step that goes back, and a second training: three
files, the last in a directory of its own."""


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path))


async def deliver_rest(lane: Lane) -> None:
    for event in HISTORY[lane.events :]:
        await lane.deliver([event])
    await lane.finish("finished")


def tear(path: Path, acknowledged: int, share: float, garbage: bytes) -> None:
    """Leave of what is not acknowledged only a share, and garbage behind it."""
    size = path.stat().st_size
    os.truncate(path, acknowledged + int((size - acknowledged) * share))
    if path.stat().st_size == 0:
        path.unlink()
    elif garbage:
        with path.open("ab") as file:
            file.write(garbage)


@settings(deadline=None, max_examples=60)
@given(
    acknowledged=st.integers(0, len(HISTORY)),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    garbage=st.binary(max_size=9),
)
async def test_a_crash_at_any_byte_and_a_replay_leave_the_same_files(
    tmp_path_factory: pytest.TempPathFactory,
    acknowledged: int,
    shares: tuple[float, ...],
    garbage: bytes,
) -> None:
    directory = tmp_path_factory.mktemp("runs")
    lane = Lane(TensorBoardCallback(logging_dir=directory), describe(directory))
    await lane.deliver(HISTORY[:acknowledged])
    state = json.loads(json.dumps(lane.tracker.state()))
    before = contents(directory)
    await deliver_rest(lane)
    whole = contents(directory)
    assert len(whole) == 3

    for file, share in zip(files(directory), shares, strict=True):
        tear(file, len(before.get(file.name, b"")), share, garbage)
    again = Lane(TensorBoardCallback.from_state(state), describe(directory), acknowledged)
    await deliver_rest(again)
    rewritten = {name for name in whole if whole[name] != before.get(name)}
    after = contents(directory)
    assert {name: after[name] for name in rewritten} == {name: whole[name] for name in rewritten}


async def test_a_run_finds_its_directories_again_after_a_crash_also_if_others_are_gone(
    tmp_path: Path,
) -> None:
    others = [
        Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path), n) for n in (9, 8)
    ]
    for other in others:
        await other.deliver(training(0, 1))
    lane = Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path), 99)
    state = lane.tracker.state()
    await lane.deliver(HISTORY)
    written = contents(tmp_path / "run-3")
    assert len(written) == 3
    for file in set(files(tmp_path)) - set(files(tmp_path / "run-3")):
        file.unlink()
    (tmp_path / "run-2").rmdir()
    for file in files(tmp_path):
        os.truncate(file, 20)
    again = Lane(TensorBoardCallback.from_state(state), describe(tmp_path), 99)
    await again.deliver(HISTORY)
    assert contents(tmp_path) == contents(tmp_path / "run-3") == written


def test_processes_that_begin_at_once_take_a_directory_each(tmp_path: Path) -> None:
    base, claim = str(tmp_path / "runs"), Claim(RUN)
    together = threading.Barrier(16)

    def begin(number: int) -> str:
        together.wait()
        name = file_name(number, "node7", f"{number:032x}", 0)
        return str(Path(take(base, claim, name)).parent)

    with ThreadPoolExecutor(16) as pool:
        directories = list(pool.map(begin, range(16)))
    numbered = {f"{base}/run-{number}" for number in range(2, 17)}
    assert set(directories) == {base, *numbered}


async def test_one_write_and_many_leave_the_same_files(tmp_path: Path) -> None:
    for name, group in (("one", len(HISTORY)), ("many", 1)):
        lane = Lane(TensorBoardCallback(logging_dir=tmp_path / name), describe(Path("out")))
        for first in range(0, len(HISTORY), group):
            await lane.deliver(HISTORY[first : first + group])
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


async def test_the_state_stays_where_it_was_until_records_are_written(lane: Lane) -> None:
    await lane.deliver(training(0, 3))
    acknowledged = lane.tracker.state()
    await lane.add(training(3, 5))
    assert lane.tracker.state() == acknowledged
    await lane.tracker.flush()
    assert lane.tracker.state() != acknowledged


async def test_a_full_disk_keeps_the_outbox_until_there_is_space(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.add(training(0, 3))
    path = tmp_path / file_name(1_700_000_000_100_000_000, "node7", lane.tracker.run.key, 0)
    path.symlink_to("/dev/full")
    with pytest.raises(TransientError, match="No space left"):
        await lane.tracker.flush()
    path.unlink()
    await lane.deliver([("on_log", 4, {"loss": 0.25})])
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("parent", ["file", "/proc"])
async def test_a_directory_that_cannot_be_made_gives_the_tracker_up(
    tmp_path: Path, parent: str
) -> None:
    (tmp_path / "file").touch()
    lane = Lane(TensorBoardCallback(logging_dir=tmp_path / parent / "runs"), describe(tmp_path))
    with pytest.raises(AccessError, match="logging_dir"):
        await lane.deliver(training(0, 1))


async def test_a_file_that_someone_removed_is_followed_by_another(
    lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await lane.deliver(training(0, 3))
    files(tmp_path)[0].unlink()
    with caplog.at_level(logging.WARNING, "asynccb"):
        await lane.deliver([("on_log", 4, {"loss": 0.25})])
        await lane.deliver([("on_log", 5, {"loss": 0.125})])
    assert points(tmp_path) == {"train/loss": [(4, 0.25), (5, 0.125)]}
    assert caplog.text.count("was removed or truncated") == 1


async def test_a_file_that_someone_cut_keeps_its_whole_records(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver(training(0, 3))
    os.truncate(files(tmp_path)[0], files(tmp_path)[0].stat().st_size - 3)
    await lane.deliver([("on_log", 4, {"loss": 0.25})])
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 4]


async def test_a_run_without_an_outbox_writes_nothing(lane: Lane, tmp_path: Path) -> None:
    await lane.tracker.flush()
    await lane.finish("finished")
    assert files(tmp_path) == []
