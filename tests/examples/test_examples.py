"""The examples run as their docstrings say."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trackers.mlflow.server import RealMLflow

ROOT = Path(__file__).parents[2]


def run(name: str, directory: Path, *options: str, ranks: int = 1) -> str:
    """Run an example in a directory of its own, and return what it printed."""
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__"]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command += [str(ROOT / "examples" / name), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def logged_steps(directory: Path, tag: str) -> list[int]:
    (folder,) = directory.iterdir()  # one for the run
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [event.step for event in reader.Scalars(tag)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_quick_start_is_one_run_with_every_step_in_each_tracker_and_says_where_to_look(
    tmp_path: Path, mlflow_server: RealMLflow, ranks: int
) -> None:
    earlier = [run["info"]["run_id"] for run in mlflow_server.runs("quickstart")]
    address = ("--mlflow", mlflow_server.uri)
    printed = run("quickstart.py", tmp_path, "--steps", "12", *address, ranks=ranks)
    assert "12 steps of at most 12" in printed
    assert "tensorboard --logdir quickstart/tensorboard" in printed
    assert "us of the training thread for callbacks a step" in printed
    tensorboard = tmp_path / "quickstart" / "tensorboard"
    assert logged_steps(tensorboard, "train/loss") == list(range(1, 13))
    assert (tmp_path / "quickstart" / "diary.txt").read_text().count("after 12 steps") == 1
    runs = [run["info"] for run in mlflow_server.runs("quickstart")]
    (found,) = [run for run in runs if run["run_id"] not in earlier]
    assert found["status"] == "FINISHED"
    points = mlflow_server.points(found["run_id"], "loss")
    assert [step for step, _, _ in points] == list(range(1, 13))


def test_the_hand_written_loop_logs_every_step(tmp_path: Path) -> None:
    printed = run("custom_loop.py", tmp_path, "--steps", "50")
    assert printed.startswith("50 steps, ")
    assert logged_steps(tmp_path / "custom_loop" / "tensorboard", "train/loss") == list(
        range(1, 51)
    )
    assert "after 50 steps" in (tmp_path / "custom_loop" / "diary.txt").read_text()


def test_a_service_stops_a_training_and_a_replay_does_without_the_service(tmp_path: Path) -> None:
    printed = run("remote_stop.py", tmp_path, "--steps", "30", "--allowed", "5")
    assert "stopped after 7 steps" in printed
    assert "replayed without the service: stopped after 7 steps" in printed


def test_a_trainer_of_transformers_logs_every_step_and_waits_for_no_report(tmp_path: Path) -> None:
    printed = run("transformers_trainer.py", tmp_path, "--steps", "5")
    assert "5 steps of at most 5" in printed
    assert "7 slow reports" in printed  # five steps, an evaluation and the run's own figures
    tensorboard = tmp_path / "transformers_trainer" / "tensorboard"
    assert logged_steps(tensorboard, "train/loss") == [1, 2, 3, 4, 5]
    diary = (tmp_path / "transformers_trainer" / "diary.txt").read_text()
    assert diary.startswith("after 5 steps the evaluation gave ")


EXAMPLES = ["quickstart.py", "custom_loop.py", "remote_stop.py", "transformers_trainer.py"]


@pytest.mark.filterwarnings("ignore")  # of what an example imports
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_it_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", [name, "--help"])

    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")

    assert end.value.code == 0
    assert "--steps" in capsys.readouterr().out
