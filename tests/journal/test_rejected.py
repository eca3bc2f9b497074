"""The file of records that can never be delivered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from asynccb._journal.rejected import Refusal, RejectedFile


def refusal(number: int, record: object = None) -> Refusal:
    return Refusal("MLflowCallback", f"the metric {number}", "400: no", number, record or {"n": 1})


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_refusal_is_a_line_with_the_record_and_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "rejected" / "MLflow.jsonl"
    file = RejectedFile(path)
    await file.append([refusal(1), refusal(2)])
    await RejectedFile(path).append([refusal(3)])
    assert [line["time"] for line in lines(path)] == [1, 2, 3]
    assert lines(path)[0] == {
        "tracker": "MLflowCallback",
        "what": "the metric 1",
        "why": "400: no",
        "time": 1,
        "record": {"n": 1},
    }


async def test_the_file_and_its_folder_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await RejectedFile(tmp_path / "rejected" / "x.jsonl").append([refusal(1)])
    finally:
        os.umask(before)
    assert (tmp_path / "rejected").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "rejected" / "x.jsonl").stat().st_mode & 0o777 == 0o600


async def test_no_refusal_makes_no_file(tmp_path: Path) -> None:
    await RejectedFile(tmp_path / "rejected" / "x.jsonl").append([])
    assert os.listdir(tmp_path) == []


async def test_the_file_stops_growing_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.jsonl"
    file = RejectedFile(path)
    for number in range(40):
        await file.append([refusal(number, "x" * (1 << 19))])
    assert 15 << 20 < path.stat().st_size <= 16 << 20
    assert caplog.text.count("is full") == 1


async def test_a_disk_that_refuses_costs_the_lines_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rejected").write_text("a file where the folder should be")
    await RejectedFile(tmp_path / "rejected" / "x.jsonl").append([refusal(1)])
    assert "cannot be written" in caplog.text
