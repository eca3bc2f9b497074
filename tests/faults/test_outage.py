"""A long outage, compressed: the events of minutes, as fast as they can be emitted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.launching import output_of


@pytest.mark.usefixtures("mlflow_environment")
def test_memory_of_trainer_and_companion_does_not_grow_with_an_outage(tmp_path: Path) -> None:
    said, _ = output_of("outlive_outage", 200_000, 0, tmp_path / "runs", timeout=120.0)
    grown = [int(kib) for kib in re.findall(r"(-?\d+) KiB", said)]
    assert len(grown) == 2
    assert max(grown) < 64 << 10, said
    assert "dropped 0" in said
