"""Files that are kept until they are uploaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynccb._journal.uploads import MOST, CrowdedError, Folder, Spool

FILES = {"model.bin": b"weights", "state.json": b"{}", "sub/empty": b""}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Folder:
    return saved(tmp_path, 1)


def saved(place: Path, step: int) -> Folder:
    folder = place / "out" / f"checkpoint-{step}"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return Folder(folder, folder.name)


async def spool(place: Path) -> Spool:
    opened = Spool(place / "uploads" / "mlflow")
    await opened.open()
    return opened


async def test_a_folder_that_is_removed_meanwhile_is_still_there_to_be_sent(
    tmp_path: Path, checkpoint: Folder
) -> None:
    one = await spool(tmp_path)
    await one.keep(7, 100, checkpoint)
    shutil.rmtree(checkpoint.path)
    kept = await one.first()
    assert (kept.name, kept.step) == ("checkpoint-1", 100)
    assert {file.name: file.path.read_bytes() for file in kept.pending()} == FILES


async def test_files_are_linked_and_take_no_space_of_their_own(
    tmp_path: Path, checkpoint: Folder
) -> None:
    one = await spool(tmp_path)
    await one.keep(7, 100, checkpoint)
    (model, *_) = (await one.first()).pending()
    assert model.path.stat().st_ino == (checkpoint.path / "model.bin").stat().st_ino


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    place = memory / f"asynccb-{os.getpid()}"
    yield place
    shutil.rmtree(place)


async def test_files_of_another_file_system_are_copied(tmp_path: Path, elsewhere: Path) -> None:
    one = await spool(tmp_path)
    await one.keep(7, 100, saved(elsewhere, 1))
    assert {file.name: file.path.read_bytes() for file in (await one.first()).pending()} == FILES


async def test_a_file_that_is_a_link_is_kept_with_what_it_points_to(
    tmp_path: Path, checkpoint: Folder
) -> None:
    (checkpoint.path / "latest").symlink_to("model.bin")
    one = await spool(tmp_path)
    await one.keep(7, 100, checkpoint)
    shutil.rmtree(checkpoint.path)
    found = {file.name: file.path.read_bytes() for file in (await one.first()).pending()}
    assert found["latest"] == b"weights"


async def test_a_single_file_can_be_kept(tmp_path: Path, checkpoint: Folder) -> None:
    one = await spool(tmp_path)
    await one.keep(7, 100, Folder(checkpoint.path / "model.bin", "best"))
    assert [file.name for file in (await one.first()).pending()] == ["model.bin"]


async def test_what_is_stored_is_not_sent_again_after_a_crash(
    tmp_path: Path, checkpoint: Folder
) -> None:
    one = await spool(tmp_path)
    await one.keep(7, 100, checkpoint)
    await one.seen(8)
    kept = await one.first()
    await kept.stored(kept.pending()[0])
    again = await spool(tmp_path)
    assert again.next == 8
    assert [file.name for file in (await again.first()).pending()] == ["state.json", "sub/empty"]
    await again.remove_first()
    assert again.empty
    assert (await spool(tmp_path)).empty
    assert (await spool(tmp_path)).next == 8


async def test_a_crash_while_a_folder_was_kept_leaves_nothing_of_it(
    tmp_path: Path, checkpoint: Folder
) -> None:
    torn = tmp_path / "uploads" / "mlflow" / "000000000007.new" / "files"
    torn.mkdir(parents=True)
    (torn / "half").write_bytes(b"")
    one = await spool(tmp_path)
    assert (one.empty, one.next) == (True, 0)
    assert not torn.exists()
    await one.keep(7, 100, checkpoint)
    assert (await spool(tmp_path)).next == 8


async def test_folders_come_in_the_order_of_their_records(tmp_path: Path) -> None:
    one = await spool(tmp_path)
    for number in (9, 10, 11):
        await one.keep(number, number, saved(tmp_path, number))
    again = await spool(tmp_path)
    steps = []
    while not again.empty:
        steps.append((await again.first()).step)
        await again.remove_first()
    assert steps == [9, 10, 11]


async def test_a_folder_that_is_gone_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    one = await spool(tmp_path)
    with pytest.raises(FileNotFoundError):
        await one.keep(7, 100, Folder(tmp_path / "gone", "gone"))
    assert one.empty
    assert list((tmp_path / "uploads" / "mlflow").iterdir()) == []


async def test_only_so_many_folders_may_wait(tmp_path: Path, checkpoint: Folder) -> None:
    one = await spool(tmp_path)
    for number in range(MOST):
        await one.keep(number, number, checkpoint)
    with pytest.raises(CrowdedError):
        await one.keep(MOST, MOST, checkpoint)


async def test_only_so_many_bytes_may_wait_and_what_is_stored_makes_room(
    tmp_path: Path, checkpoint: Folder
) -> None:
    (checkpoint.path / "model.bin").write_bytes(bytes(2 << 20))
    one = Spool(tmp_path / "uploads" / "mlflow", 3 << 20)
    await one.open()
    await one.keep(1, 1, checkpoint)
    with pytest.raises(CrowdedError, match=r"2 MiB, and 2 MiB .* more than 3 MiB; .*_LIMIT"):
        await one.keep(2, 2, checkpoint)
    assert len(list((tmp_path / "uploads" / "mlflow").iterdir())) == 1
    kept = await one.first()
    await kept.stored(kept.pending()[0])
    await one.keep(3, 3, checkpoint)


async def test_folders_are_private_whatever_the_umask_is(
    tmp_path: Path, checkpoint: Folder
) -> None:
    before = os.umask(0)
    try:
        one = await spool(tmp_path)
        await one.keep(7, 100, checkpoint)
    finally:
        os.umask(before)
    for place in (tmp_path / "uploads", tmp_path / "uploads" / "mlflow"):
        assert place.stat().st_mode & 0o777 == 0o700
    assert (await one.first()).place.stat().st_mode & 0o777 == 0o700
