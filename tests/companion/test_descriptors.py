"""No more file descriptors to be had, in the companion or in the training process."""

from __future__ import annotations

from pathlib import Path

from asynccb._cli import main
from tests.support.callbacks_for_tests import read_lines, read_steps
from tests.support.launching import output_of


def test_a_companion_that_cannot_begin_a_segment_serves_from_memory_and_loses_nothing(
    tmp_path: Path,
) -> None:
    said, errors = output_of("few_files", "companion", tmp_path / "runs", tmp_path / "output")
    assert said.split() == ["True", "True", "1810", "0"]
    assert errors.count("the journal cannot be written ([Errno 24] Too many open files") == 1
    assert "the journal can be written again; 0 events were dropped meanwhile" in errors
    assert read_steps(tmp_path / "output") == list(range(1, 1811))
    assert read_lines(tmp_path / "output")[-1]["status"] == "finished"


def test_a_training_process_without_descriptors_goes_on_and_everything_is_delivered(
    tmp_path: Path,
) -> None:
    said, _ = output_of("few_files", "training", tmp_path / "runs", tmp_path / "output")
    assert said.split() == ["True", "1310", "0"]
    assert read_steps(tmp_path / "output") == list(range(1, 1311))
    assert read_lines(tmp_path / "output")[-1]["status"] == "finished"


def test_a_companion_that_cannot_be_started_again_costs_what_does_not_fit_the_ring_and_that_is_said(
    tmp_path: Path,
) -> None:
    said, errors = output_of(
        "few_files", "companion killed", tmp_path / "runs", tmp_path / "output"
    )
    flushed, total, dropped = said.split()
    assert flushed == "False"
    assert int(dropped) > 0
    assert "the companion process cannot be started again: [Errno 24]" in errors
    assert f"{dropped} events dropped" in errors
    assert "NOT delivered" in errors
    assert main(["sync", str(tmp_path / "runs")]) == 0
    assert len(set(read_steps(tmp_path / "output"))) + int(dropped) == int(total)
