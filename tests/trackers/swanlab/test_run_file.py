"""The run files of SwanLab's local mode, as the vendor's own reader finds them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.exceptions import AccessError
from asynccb.trackers.swanlab import run_file_format as records
from tests.support.surroundings import go_home
from tests.trackers.lane import START, deliver, description, emitted, play, revived, training
from tests.trackers.swanlab.reader import SwanLabReader
from tests.trackers.swanlab.runs import kept, tracker


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "SWANLAB")
    monkeypatch.setenv("SWANLAB_MODE", "local")


def file_in(tmp_path: Path) -> Path:
    (file,) = tmp_path.glob("swanlog/run-*/run-*.swanlab")
    return file


def content(tmp_path: Path) -> bytes:
    return file_in(tmp_path).read_bytes()


def losses(run: dict[str, Any]) -> list[list[Any]]:
    return [[step, value] for key, step, value, _ in run["scalars"] if key == "train/loss"]


@given(st.lists(st.binary(max_size=70_000), max_size=6), st.integers(0, 6))
def test_records_make_the_same_bytes_however_they_are_gathered(
    contents: list[bytes], first: int
) -> None:
    start = len(records.HEADER)
    whole = records.framed(contents, start)
    head = records.framed(contents[:first], start)
    assert head + records.framed(contents[first:], start + len(head)) == whole


async def test_the_vendors_reader_finds_all_and_records_that_fill_blocks(
    swanlab_reader: SwanLabReader, tmp_path: Path
) -> None:
    text = "ö" * 50_000  # two bytes each, so the configuration is in four blocks
    made = tracker(description(notes=text), run_id="an id", tags=["a", "b"], workspace="w")
    await deliver(made, training(2000))
    made.time = emitted("end", 2001).time
    await made.finish("killed")
    (run,) = swanlab_reader.runs(tmp_path / "swanlog")
    assert run["state"] == "aborted"
    assert run["error"] == "The training ended as killed."
    assert run["config"]["notes"]["value"] == text
    assert run["metadata"]["runtime"] == {"hostname": "node7", "command": "train.py"}
    assert losses(run) == [[step, 1 / step] for step in range(1, 2001)]
    assert run["start"]["id"] == "an id"
    assert (run["start"]["project"], run["start"]["tags"]) == ("proj", "['a', 'b']")
    assert run["scalars"][0] == ["train/loss", 1, 1.0, "2026-11-18T11:06:40.001500Z"]
    assert made.rejected == 0


async def test_a_second_process_writes_the_same_bytes_over_what_was_not_acknowledged(
    tmp_path: Path,
) -> None:
    made = tracker()
    await deliver(made, training(10))
    state = made.state()
    await deliver(made, training(10, first=11))
    whole = content(tmp_path)
    again = revived(made, state)
    await deliver(again, training(4, first=11))
    await deliver(again, training(6, first=15))
    assert content(tmp_path) == whole


async def test_a_run_that_goes_on_takes_the_place_of_its_end(
    swanlab_reader: SwanLabReader, tmp_path: Path
) -> None:
    made = tracker()
    await deliver(made, training(3))
    await made.finish("failed")
    again = tracker(made.run)
    assert again.resume(made.state()["attributes"])
    await deliver(again, training(2, first=4))
    await again.finish("finished")
    (run,) = swanlab_reader.runs(tmp_path / "swanlog")
    assert (run["state"], run["error"]) == ("finished", "")
    assert [step for step, _ in losses(run)] == [1, 2, 3, 4, 5]


async def test_models_are_beside_the_file_and_named_in_it(
    swanlab_reader: SwanLabReader, tmp_path: Path
) -> None:
    made = tracker(log_model="checkpoint")
    await deliver(made, training(2))
    folder = await kept(tmp_path, b__c=b"xyz", a=b"")
    await made.upload(folder)
    assert folder.pending() == []
    await made.finish("finished")
    (run,) = swanlab_reader.runs(tmp_path / "swanlog")
    assert run["files"] == {"checkpoint-2/a": "", "checkpoint-2/b/c": "xyz"}


async def test_lines_of_the_console_are_numbered_through(
    swanlab_reader: SwanLabReader, tmp_path: Path
) -> None:
    made = tracker()
    made.time = START
    await made.told("console", {"lines": [[False, START, "one"], [True, START, "two"]]}, 0)
    await made.flush()
    again = revived(made, made.state())
    again.time = START
    await again.told("console", {"lines": [[False, START, "three"]]}, 0)
    await again.flush()
    (run,) = swanlab_reader.runs(tmp_path / "swanlog")
    assert run["lines"] == [[1, "one"], [2, "two"], [3, "three"]]


async def test_a_file_that_somebody_has_cut_is_said(tmp_path: Path) -> None:
    made = tracker()
    await deliver(made, training(3))
    os.truncate(file_in(tmp_path), 10)
    await play(made, training(1, first=4))
    with pytest.raises(AccessError, match="is gone or shorter"):
        await made.flush()


async def test_a_folder_that_cannot_be_made_is_said_with_what_to_do(tmp_path: Path) -> None:
    made = tracker(log_dir=tmp_path / "later")
    (tmp_path / "later").write_text("a file by now")
    await play(made, training(1))
    with pytest.raises(AccessError, match="SWANLAB_LOG_DIR"):
        await made.flush()
