"""The cursor: how far a tracker has come."""

from __future__ import annotations

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from asynccb._ground.exceptions import JournalError
from asynccb._journal.cursor import Cursor, load_cursor, replace, save_cursor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cursors" / "tracker.cursor"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_cursor_comes_back_as_it_was_saved(path: Path) -> None:
    cursor = Cursor(
        7, 3, {"max_steps": 9, "best_metric": None}, {"run_id": "x", "files": [1]}, True
    )
    await save_cursor(path, cursor)
    assert load_cursor(path) == cursor


def test_without_a_file_a_tracker_begins_at_the_first_record(path: Path) -> None:
    assert load_cursor(path) == Cursor(position=0, run=None, finished=False)


def test_two_new_cursors_share_nothing(path: Path) -> None:
    load_cursor(path).values["step"] = 1
    assert load_cursor(path).values == {}


async def test_folder_and_file_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        await save_cursor(path, Cursor(1))
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


async def test_a_reader_sees_a_whole_cursor_at_any_moment(path: Path) -> None:
    await save_cursor(path, Cursor(0, attributes={"size": 0}))
    over = threading.Event()
    seen: list[Cursor] = []
    failures: list[Exception] = []

    def watch() -> None:
        while not over.is_set():
            try:
                seen.append(load_cursor(path))
            except JournalError as error:
                failures.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    for number in range(300):
        await save_cursor(path, Cursor(number, attributes={"size": number, "pad": "x" * number}))
    over.set()
    thread.join()
    assert not failures
    assert all(cursor.attributes["size"] == cursor.position for cursor in seen)
    assert len({cursor.position for cursor in seen}) > 1


async def test_a_cursor_that_cannot_be_written_leaves_the_one_before(path: Path) -> None:
    await save_cursor(path, Cursor(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            await save_cursor(path, Cursor(2, attributes={"pad": "x" * 1000}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_cursor(path) == Cursor(1)


async def test_nothing_but_the_file_is_left_behind(path: Path) -> None:
    for number in range(3):
        await save_cursor(path, Cursor(number))
    assert list(path.parent.iterdir()) == [path]


async def test_a_replaced_file_keeps_nothing_of_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    await replace(path, b"x" * 1000)
    await replace(path, b"short")
    assert path.read_bytes() == b"short"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"no cursor", b"\x81\xa8position\xa1x"])
def test_a_file_that_is_no_cursor_is_refused_by_name(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"tracker\.cursor is not a cursor"):
        load_cursor(path)
