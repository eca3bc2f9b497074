"""What the vendor's own programs make of our files, experiments and live updates."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb.trackers.dvclive.values import metric_name, split
from tests.support.launching import command, environment
from tests.support.regression import Model
from tests.trackers.dvclive.studio import TOKEN, Studio, studio_server
from tests.trackers.dvclive.written import latest, studio_rows, tables

STEPS = 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Git repository with one commit, nothing of DVC's in it, and an environment for both."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC", "STUDIO_", "HF_", "GIT_")) or name.endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_TEST", "1")  # asks nobody for updates
        patch.chdir(root)
        git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@127.0.0.1"]
        (root / "train.py").write_text("print()\n")
        (home / ".gitconfig").write_text("[user]\nname = ada\nemail = ada@127.0.0.1\n")
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run([*git, *arguments], check=True)
        remote = ["remote", "add", "origin", "https://ada:secret@127.0.0.1/ada/proj.git"]
        subprocess.run([*git, *remote], check=True)
        yield root


@pytest.fixture(scope="module")
def studio(repository: Path) -> Iterator[Studio]:
    with studio_server() as studio, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_STUDIO_URL", studio.url)
        patch.setenv("DVC_STUDIO_TOKEN", TOKEN)
        yield studio


@pytest.fixture(scope="module")
def ours(repository: Path, studio: Studio) -> Path:
    """A whole run of ours, with a model, an experiment and updates."""
    args = asynccb.TrainingArguments(output_dir="out", learning_rate=5e-4)
    tracker = asynccb.DVCLiveCallback(log_model=True, exp_name="ours", exp_message="m")
    with asynccb.CallbackDispatcher([tracker], args=args, model=Model(), max_steps=STEPS) as run:
        for step in range(1, STEPS + 1):
            logs = {"loss": 1 / step, "eval_loss": math.nan, "größe @ 5[%]": 2.0, "note": "hi"}
            run.step(logs=logs)
    (counts,) = run.statistics().callbacks.values()
    assert (counts.rejected, counts.failed, counts.disabled) == (0, 0, False)
    return repository


@pytest.fixture(scope="module")
def theirs(ours: Path, studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of theirs, one behind rows of ours, and one that logs beside ours."""
    folder = tmp_path_factory.mktemp("runs")
    given = {"dir": "resumed", "dvcyaml": None, "save_dvc_exp": False, "exp_name": "resumed"}
    args = asynccb.TrainingArguments(output_dir="out")
    tracker = asynccb.DVCLiveCallback(log_model="all", **given)
    checkpoint = ours / "out/checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"weights")
    with asynccb.CallbackDispatcher([tracker], args=args, directory=ours / "out/runs") as run:
        for _ in range(3):
            run.step(logs={"loss": 1.0})
        run.emit("on_save")
        assert run.flush(60)
        shutil.rmtree(checkpoint)  # as a training that keeps few checkpoints does
    told = subprocess.run(
        command("trackers/dvclive/vendor_program", folder, *NAMES),
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
    )
    assert json.loads(told.stdout.splitlines()[-1]) == [metric_name(split(name)) for name in NAMES]
    return ours


NAMES = ("loss", "eval_loss", "train_runtime", "test_loss", "retrieval_acc", "eval_train_loss")
"""Of metrics, which are to be called what the vendor calls them for transformers."""


SHOWN = (("metrics", "show"), ("plots", "show"), ("params", "diff"))
SHOW = """
import sys
from dvc.cli import main
for command in sys.argv[1:]:
    assert main([*command.split(), "--json"]) == 0
    print()
"""


@pytest.fixture(scope="module")
def shown(ours: Path) -> dict[str, Any]:
    """What three commands of `dvc` print, of which one process is quicker than three."""
    commands = [" ".join(words) for words in SHOWN]
    lines = output_of(sys.executable, "-c", SHOW, *commands).splitlines()
    texts = [json.loads(line) for line in lines if line]
    return dict(zip((words[0] for words in SHOWN), texts, strict=True))


def output_of(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def git(*arguments: str) -> list[str]:
    return output_of("git", *arguments).split("\n")[:-1]


def bodies(studio: Studio, name: str) -> list[dict[str, Any]]:
    return [body for body in studio.bodies if body["name"] == name]


def test_dvc_reads_our_metrics(shown: dict[str, Any]) -> None:
    (found,) = shown["metrics"][""]["data"].values()
    assert found["data"] == {
        "loss": 1 / STEPS,
        "eval": {"loss": "nan"},
        "größe @ 5[%]": 2.0,
        "note": "hi",
        "step": STEPS,
    }


def test_dvc_reads_our_plots(shown: dict[str, Any]) -> None:
    plots = shown["plots"]["data"]
    folder = "dvclive/plots/metrics"
    names = {f"{folder}/{name}.tsv" for name in ("loss", "eval/loss", "größe @ 5[%]", "note")}
    assert set(plots) == names
    (plot,) = plots[f"{folder}/loss.tsv"]
    points = plot["content"]["data"]["values"]
    assert [(int(p["step"]), float(p["loss"])) for p in points] == [
        (step, 1 / step) for step in range(1, STEPS + 1)
    ]


def test_dvc_reads_our_parameters(shown: dict[str, Any]) -> None:
    (changes,) = shown["params"].values()
    assert changes["learning_rate"]["new"] == 5e-4
    assert changes["output_dir"]["new"] == "out"


def test_our_experiment_holds_the_files_and_the_model(ours: Path, studio: Studio) -> None:
    (reference,) = git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/ours")
    held = git("ls-tree", "-r", "--name-only", reference)
    assert {"dvc.yaml", "dvclive/metrics.json", "dvclive/plots/metrics/loss.tsv"} <= set(held)
    assert "dvclive/artifacts/last.dvc" in held
    assert (ours / "dvclive/artifacts/last/model.safetensors").exists()
    assert git("log", "-1", "--format=%s", reference) == ["m"]
    assert "last:" in git("show", f"{reference}:dvc.yaml")[-3]
    (commit,) = git("rev-parse", "HEAD")
    experiment = studio.experiments["https://127.0.0.1/ada/proj.git", commit, "ours"]
    assert [experiment.revision] == git("rev-parse", reference)


def test_studio_is_told_by_us_what_the_vendor_tells_it(theirs: Path, studio: Studio) -> None:
    assert studio.problems == []
    of = {name: experiment for (_, _, name), experiment in studio.experiments.items()}
    rows = tables(theirs / "dvclive")
    told = studio_rows(of["ours"], "dvclive")
    assert told["loss"] == rows["loss"]
    assert set(told) == set(rows) - {"note"}
    assert shapes(bodies(studio, "ours")) == shapes(bodies(studio, "theirs"))
    for name, directory in (("ours", "dvclive"), ("theirs", "theirs")):
        assert (of[name].started, of[name].done, of[name].message) == (1, True, "m")
        assert list(of[name].params) == [f"{directory}/params.yaml"]
        assert list(of[name].metrics) == [f"{directory}/metrics.json"]


def shapes(sent: list[dict[str, Any]]) -> list[tuple[str, frozenset[str]]]:
    """Return the kinds of requests in their order, each once, with the names of their fields."""
    return list(dict.fromkeys((body["type"], frozenset(body)) for body in sent))


def test_a_live_resumes_behind_our_rows(theirs: Path) -> None:
    assert [step for step, _ in tables(theirs / "resumed")["loss"]] == [1, 2, 3, 4, 5, 6]
    found = latest(theirs / "resumed")
    assert (found["loss"], found["step"]) == (1 / 3, 6)
    assert "output_dir" in (theirs / "resumed/params.yaml").read_text()


def test_we_resume_behind_rows_of_a_live_that_have_two_widths(theirs: Path) -> None:
    folder = theirs / "widths/plots/metrics"
    assert (folder / "loss.tsv").read_text().splitlines()[-1] == "4\t0.5"
    assert (folder / "timed.tsv").read_text().splitlines()[-1].split("\t")[1:] == ["4", "0.5"]
    assert latest(theirs / "widths")["step"] == 4


def test_all_of_the_output_is_tracked_as_it_was_when_a_checkpoint_was_saved(theirs: Path) -> None:
    kept = theirs / "resumed/artifacts/out"
    files = [path.relative_to(kept) for path in kept.rglob("*") if path.is_file()]
    assert files == [Path("checkpoint-3/weights")]  # and no journal
    assert "md5" in (theirs / "resumed/artifacts/out.dvc").read_text()
    digest = hashlib.md5(b"weights", usedforsecurity=False).hexdigest()
    cached = theirs / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    assert cached.read_bytes() == b"weights"


def test_a_given_live_sums_up_what_both_have_logged(theirs: Path, studio: Studio) -> None:
    assert latest(theirs / "both") == {
        "before": {"rows": 640},
        "loss": 1 / 3,
        "after": {"score": 0.75},
        "step": 3,
    }
    found = tables(theirs / "both")
    assert found["loss"] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert found["before/rows"] == [(0, 640.0)]
    params = (theirs / "both/params.yaml").read_text()
    assert "data: v2" in params
    assert "output_dir: out" in params
    assert git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/both") == ["both"]
    kinds = [body["type"] for body in bodies(studio, "both")]
    assert (kinds.count("start"), kinds.count("done"), kinds[-1]) == (1, 1, "done")


def test_a_given_live_that_nobody_else_ends_is_ended_by_us(theirs: Path, studio: Studio) -> None:
    assert tables(theirs / "alone")["loss"] == [(1, 1.0)]
    assert git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/alone") == ["alone"]
    kinds = [body["type"] for body in bodies(studio, "alone")]
    assert (kinds[0], kinds.count("start"), kinds[-1]) == ("start", 1, "done")


def test_dvc_shows_each_metric_under_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    names = [
        *("a.b", "a/b", "a", "Loss", "loss", "train_y", "train/y", "step", "step_", "精度", "召回"),
        *("recall>0.5", "recall<0.5", "", "é", "e\u0301", "x/y/z", "x.y/z"),
    ]
    logs = {name: float(number) for number, name in enumerate(names, start=100)}
    tracker = asynccb.DVCLiveCallback(save_dvc_exp=False)
    with asynccb.CallbackDispatcher([tracker], max_steps=1, directory=tmp_path / "runs") as run:
        run.step(logs=logs)
    told = subprocess.run(  # of `a.b` beside `a` with `b` it says: duplicated key
        [*dvc, "metrics", "show", "--md", "--precision", "6"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    head, _, row = told.stdout.strip().splitlines()
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    shown = {float(value): name for name, value in zip(columns[1:], cells[1:], strict=True)}
    assert len(shown) == len(set(shown.values())) == len(names) + 1  # and DVCLive's own step
    for name in ("a.b", "Loss", "精度", "召回", "recall>0.5", "recall<0.5", "é"):
        assert shown[logs[name]] == name
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tsv")}
    assert len({file.casefold() for file in files}) == len(names)
