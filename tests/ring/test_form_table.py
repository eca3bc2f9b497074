"""The table of forms that records name by a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynccb._ring.form_table import TABLE_SIZE, FormTable


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_a_form_is_found_by_its_number_on_the_other_side_and_equal_ones_share_it(
    forms: list[bytes],
) -> None:
    memory = bytearray(TABLE_SIZE)
    ours, theirs = FormTable(memoryview(memory)), FormTable(memoryview(memory))
    numbers = [ours.add(form) for form in forms]
    assert 0 not in numbers
    assert [theirs.find(number) for number in numbers] == forms
    assert [ours.add(form) for form in forms] == numbers
    assert len(set(numbers)) == len(set(forms))


def test_a_form_for_which_there_is_no_room_has_no_number_and_harms_no_other() -> None:
    table = FormTable(memoryview(bytearray(64)))
    first = table.add(b"a" * 20)
    assert table.add(b"b" * 60) == 0
    last = table.add(b"c" * 36)  # up to the last byte
    assert table.add(b"d") == 0
    assert [table.find(first), table.find(last)] == [b"a" * 20, b"c" * 36]
