"""
Whatever the order and the time in which lanes complete, a run decides the same.

`python tests/decisions/prove_decisions.py schedules 10000` has more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.decisions.schedules import check


@pytest.mark.parametrize("block", range(10))
def test_any_interleaving_gives_one_trace(tmp_path: Path, block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        check(seed, 5, tmp_path)
