"""A record that is encoded by hand is what the encoder would have made of it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from asynccb._record import encode_log

WORDS = st.integers(0, (1 << 64) - 1)


@given(
    kind=st.integers(0, 127),
    time=WORDS,
    step=WORDS,
    epoch=st.floats(allow_nan=False),
    flags=st.integers(0, (1 << 16) - 1),
    extension=st.integers(0, 127),
    body=st.binary(max_size=70_000),
)
def test_a_log_that_is_encoded_by_hand_decodes_to_its_parts(
    kind: int, time: int, step: int, epoch: float, flags: int, extension: int, body: bytes
) -> None:
    record = msgspec.msgpack.decode(encode_log(kind, time, step, epoch, flags, extension, body))

    assert record == [kind, time, step, epoch, flags, msgspec.msgpack.Ext(extension, body)]
