"""Writing to a file at an offset."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.shared.offset_file import ShortFileError, write_at


async def test_what_lies_behind_the_offset_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    await write_at(path, 0, b"abcdef", hint="give a directory in DIRECTORY")
    await write_at(path, 3, b"X", hint="give a directory in DIRECTORY")
    assert path.read_bytes() == b"abcX"


async def test_a_file_that_ends_before_the_offset_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with pytest.raises(ShortFileError):
        await write_at(path, 4, b"X", hint="give a directory in DIRECTORY")
    assert path.read_bytes() == b"abc"


async def test_a_file_that_is_gone_is_not_made_again_at_an_offset(tmp_path: Path) -> None:
    with pytest.raises(ShortFileError):
        await write_at(tmp_path / "file", 4, b"X", hint="give a directory in DIRECTORY")
    assert os.listdir(tmp_path) == []


async def test_a_full_disk_may_pass() -> None:
    with pytest.raises(TransientError, match="No space left") as raised:
        await write_at(Path("/dev/full"), 0, b"X", hint="give a directory in DIRECTORY")
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


async def test_a_directory_in_the_place_of_the_file_will_not_pass(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="give a directory in DIRECTORY"):
        await write_at(tmp_path, 0, b"X", hint="give a directory in DIRECTORY")
