import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as peer_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.shared.offset_file import (
    ShortFileError,
    _table_crc32c,
    file_name,
    frame,
    masked_crc32c,
    write_at,
)


class Buffer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_the_checksum_is_castagnoli_s() -> None:
    assert _table_crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=300))
def test_a_record_is_framed_as_tensorboard_s_own_writer_does(data: bytes) -> None:
    peer = Buffer()
    RecordWriter(peer).write(data)
    assert frame(data) == peer.data
    assert masked_crc32c(data) == peer_crc32c(data)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_tensorboard_s_own_reader_reads_framed_records_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("records") / "file"
    path.write_bytes(b"".join(map(frame, records)))
    reader = PyRecordReader_New(str(path))
    for record in records:
        reader.GetNext()
        assert reader.record() == record


@pytest.mark.parametrize("host", ["node7", "a/../b", "", "größe.local", "x" * 300])
def test_a_file_name_is_one_for_any_host_and_is_known_to_tensorboard(host: str) -> None:
    name = file_name(1_700_000_000_000_000_005, host, "0123456789abcdef", 3)
    assert name.startswith("events.out.tfevents.1700000000.")
    assert name.endswith(".01234567.000000005.3")  # another one for a run resumed in this second
    assert os.path.basename(name) == name
    assert len(name.encode()) < 255


async def test_what_lies_behind_the_offset_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    await write_at(path, 0, b"abcdef")
    await write_at(path, 3, b"X")
    assert path.read_bytes() == b"abcX"


async def test_a_file_that_ends_before_the_offset_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with pytest.raises(ShortFileError):
        await write_at(path, 4, b"X")
    assert path.read_bytes() == b"abc"


async def test_a_file_that_is_gone_is_not_made_again_at_an_offset(tmp_path: Path) -> None:
    with pytest.raises(ShortFileError):
        await write_at(tmp_path / "file", 4, b"X")
    assert os.listdir(tmp_path) == []


async def test_a_full_disk_may_pass() -> None:
    with pytest.raises(TransientError, match="No space left") as raised:
        await write_at(Path("/dev/full"), 0, b"X")
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


async def test_a_directory_in_the_place_of_the_file_will_not_pass(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="TENSORBOARD_LOGGING_DIR"):
        await write_at(tmp_path, 0, b"X")


def test_the_length_in_front_is_little_endian() -> None:
    assert struct.unpack("<Q", frame(b"abc")[:8]) == (3,)
