"""The pictures of the GPU benches are drawn from their result files alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))  # scripts find their neighbours in the same way

import _plot  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
FIGURE = {"median": 0.98, "least": 0.9, "greatest": 1.0}
STEP_ROWS: list[dict[str, Any]] = [
    {
        "workload": "graph",
        "scalars": 5,
        "logger": "asynccb",
        "trackers": 4,
        "ratio": FIGURE,
        "ratio_quartiles": [0.97, 0.98, 0.99],
        "steps_per_second": FIGURE,
    },
    {"workload": "graph", "scalars": 5, "logger": "W&B offline", "skipped": "wandb is missing"},
]
STAGING_ROWS: list[dict[str, Any]] = [
    {
        "figure": "cost",
        "scalars": 5,
        "load": "idle",
        "way": way,
        "microseconds": {"p50": 3.0, "p90": 4.0, "p99": 9.0, "max": 20.0},
    }
    for way in ("item", "asynccb")
] + [
    {
        "figure": "latency",
        "workload": "graph",
        "steps_per_second": 5000.0,
        "milliseconds": {"p50": 8.0, "p90": 12.0, "p99": 15.0, "max": 30.0},
    }
]
SPAN = {"row": "host", "kind": "cuda_runtime", "name": "launch", "begin": 0.0, "duration": 3.0}
TIMELINE_ROWS = [
    {"workload": "graph", "logger": "asynccb", "spans": {"without": [SPAN], "with": [SPAN]}}
]


def write(path: Path, bench: str, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"bench": bench, "machine": {"device": "a GPU"}, "rows": rows}))
    return path


@pytest.mark.parametrize(
    ("bench", "rows"),
    [
        ("gpu_step", STEP_ROWS),
        ("gpu_staging", STAGING_ROWS),
        ("gpu_timeline", TIMELINE_ROWS),
    ],
)
def test_a_result_is_drawn_to_a_picture_beside_it(
    bench: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    picture = _plot.draw(write(tmp_path / "result.json", bench, rows))

    assert picture == tmp_path / "result.png"
    assert picture.read_bytes().startswith(PNG)


def test_the_result_of_another_bench_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "emit.json", "emit", [])

    with pytest.raises(ValueError, match=r"emit\.json is the result of 'emit'"):
        _plot.draw(path)
