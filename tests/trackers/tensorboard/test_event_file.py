import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as peer_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from asynccb.trackers.tensorboard.event_file import _table_crc32c, file_name, frame, masked_crc32c


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
    assert name.startswith("events.out.tfevents.1700000000.000000005.")
    assert name.endswith(".01234567.3")
    assert os.path.basename(name) == name
    assert len(name.encode()) < 255


def test_the_length_in_front_is_little_endian() -> None:
    assert struct.unpack("<Q", frame(b"abc")[:8]) == (3,)
