"""The bridge on several ranks of a `transformers.Trainer`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.distributed.ranks import torchrun


def test_ranks_do_the_same_whoever_decides_also_after_a_resume_and_one_has_the_tracker(
    tmp_path: Path,
) -> None:
    torchrun(Path(__file__).with_name("bridge_ranks.py"), tmp_path)
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    expected = {"end": 6, "logged": [3]}
    assert ranks == [{"whole": expected, "resumed": expected}] * 2
    assert (tmp_path / "whole" / "checkpoint-2").is_dir()
    assert (tmp_path / "whole" / "tracker-0").is_file()
    assert not (tmp_path / "whole" / "tracker-1").exists()
