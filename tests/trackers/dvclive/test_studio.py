"""How DVC Studio is told: when it is away, when it refuses, and when there is much."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from dvc_studio_client.post_live_metrics import MAX_NUMBER_OF_PLOTS

import asynccb
from asynccb._ground.exceptions import TransientError
from asynccb.trackers.base import Tracker
from asynccb.trackers.dvclive.repository import NO_COMMIT, find_repository
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.trackers.dvclive.studio import TOKEN, Experiment, Studio, studio_server
from tests.trackers.dvclive.written import numeric, studio_rows, tables
from tests.trackers.front import Front, fronting
from tests.trackers.lane import deliver, description, emitted, play, revived, training, until_done
from tests.trackers.scripted import Answer, Request

LIVE = Path("live")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "DVC", "STUDIO_", "XDG_")


@pytest.fixture
def studio() -> Iterator[Studio]:
    with studio_server() as studio:
        yield studio


@pytest.fixture
def front(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    with fronting(studio.url) as front:
        monkeypatch.setenv("DVC_STUDIO_URL", front.url)
        monkeypatch.setenv("DVC_STUDIO_TOKEN", TOKEN)
        monkeypatch.setenv("DVC_STUDIO_REPO_URL", "git@127.0.0.1:ada/proj.git")
        yield front


def make(**given: Any) -> Tracker:
    tracker = asynccb.DVCLiveCallback(dir=LIVE, dvcyaml=None, **given)
    tracker.describe(description())
    return tracker


def only(studio: Studio) -> Experiment:
    (experiment,) = studio.experiments.values()
    return experiment


def check(studio: Studio) -> None:
    assert studio.problems == []
    assert numeric(studio_rows(only(studio), "live")) == numeric(tables(LIVE))
    assert only(studio).done


async def test_an_outage_lets_the_files_go_on_and_studio_has_all_in_the_end(
    studio: Studio, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = make()
    records = training(30)
    await deliver(tracker, records[:11])
    front.away = True
    await play(tracker, records[11:21])
    failures = await until_done(tracker.flush)
    assert failures > 0
    await play(tracker, records[21:])
    assert await until_done(tracker.flush) == 0  # nobody waits for Studio any more
    assert [step for step, _ in tables(LIVE)["loss"]] == list(range(1, 31))
    assert caplog.text.count("gets no updates for now") == 1
    with pytest.raises(TransientError):
        await tracker.finish("finished")
    again = revived(tracker, tracker.state())  # what a sync does
    front.away = False
    await again.finish("finished")
    await again.close()
    await tracker.close()
    check(studio)
    assert len(rows_sent(studio)) == 60


def rows_sent(studio: Studio) -> list[dict[str, Any]]:
    plots = [body.get("plots", {}) for body in studio.bodies]
    return [row for some in plots for plot in some.values() for row in plot["data"]]


async def test_a_token_that_is_refused_costs_the_updates_and_not_the_files(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DVC_STUDIO_TOKEN", "isat_expired")
    tracker = make()
    for step in range(1, 4):
        await deliver(tracker, [emitted("on_log", step, logs={"loss": 1.0})])
    await tracker.finish("finished")
    await tracker.close()
    assert [step for step, _ in tables(LIVE)["loss"]] == [1, 2, 3]
    assert (len(front.requests), tracker.rejected) == (1, 1)
    assert "check DVC_STUDIO_TOKEN; the files are still written" in caplog.text
    assert "isat_expired" not in caplog.text


async def test_a_request_that_is_refused_is_counted_and_the_next_ones_are_sent(
    studio: Studio, front: Front
) -> None:
    async def refuse(request: Request) -> Answer | None:
        bad = b'"step": 2' in request.body and b'"plots"' in request.body
        return Answer(422, b"not this one") if bad else None

    front.rules = refuse
    tracker = make()
    for step in range(1, 4):
        await deliver(tracker, [emitted("on_log", step, logs={"loss": 1 / step})])
    await tracker.finish("finished")
    await tracker.close()
    assert tracker.rejected == 1
    assert studio_rows(only(studio), "live")["loss"] == [(1, 1.0), (3, 1 / 3)]
    assert only(studio).done


async def test_a_page_of_a_proxy_does_not_stand_for_studio_s_answer(
    studio: Studio, front: Front
) -> None:
    pages = [Answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})]

    async def between(request: Request) -> Answer | None:
        return pages.pop() if pages and b'"plots"' in request.body else None

    front.rules = between
    tracker = make()
    await play(tracker, training(3))
    assert await until_done(tracker.flush) == 1
    await tracker.finish("finished")
    await tracker.close()
    check(studio)


async def test_a_text_of_any_length_is_no_plot_and_harms_none(studio: Studio, front: Front) -> None:
    tracker = make()
    sample = '"' + "x" * csv.field_size_limit() + "\t5"
    await deliver(tracker, [emitted("on_log", 1, logs={"loss": 1.0, "sample": sample})])
    await deliver(tracker, [emitted("on_log", 2, logs={"loss": 0.5})])
    await tracker.finish("finished")
    await tracker.close()
    assert studio_rows(only(studio), "live") == {"loss": [(1, 1.0), (2, 0.5)]}
    assert tracker.rejected == 0


async def test_a_row_wider_or_narrower_than_its_header_is_no_point_of_a_plot(
    studio: Studio, front: Front
) -> None:
    metrics = LIVE / "plots" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "loss.tsv").write_text("step\tloss\n0\t4.0\n1700000000001\t1\t3.0\n")
    (metrics / "timed.tsv").write_text("timestamp\tstep\ttimed\n0\t4.0\n1700000000001\t1\t3.0\n")
    tracker = make(resume=True)
    logs = {"loss": 2.0, "timed": 2.0}
    await deliver(tracker, [emitted("on_train_begin", 0), emitted("on_log", 1, logs=logs)])
    await tracker.finish("finished")
    await tracker.close()
    assert studio_rows(only(studio), "live") == {
        "loss": [(0, 4.0), (2, 2.0)],
        "timed": [(1, 3.0), (2, 2.0)],
    }


async def test_a_row_longer_than_a_request_is_passed_over_whole(
    studio: Studio, front: Front
) -> None:
    tracker = make()
    with anyio.fail_after(15):
        for step, value in ((1, 1.0), (2, "x" * 2_000_000), (3, 0.5)):
            await deliver(tracker, [emitted("on_log", step, logs={"loss": value})])
        await tracker.finish("finished")
    await tracker.close()
    assert studio_rows(only(studio), "live") == {"loss": [(1, 1.0), (3, 0.5)]}


def remove_directory() -> None:
    shutil.rmtree(LIVE)


def cut_table() -> None:
    (LIVE / "plots" / "metrics" / "loss.tsv").write_text("step\tloss\n")


def tear_table() -> None:
    (LIVE / "plots" / "metrics" / "loss.tsv").write_text("step\tloss\n1\t0.")


@pytest.mark.parametrize("harm", [remove_directory, cut_table, tear_table])
@pytest.mark.parametrize("away", [True, False])
async def test_what_someone_cuts_before_studio_has_it_is_gone_and_the_rest_arrives(
    studio: Studio, front: Front, harm: Callable[[], None], away: bool
) -> None:
    tracker = make()
    front.away = away
    await deliver(tracker, [emitted("on_log", step, logs={"loss": 1.0}) for step in (1, 2)])
    harm()
    front.away = False
    with anyio.fail_after(15):
        await tracker.finish("finished")
        await deliver(tracker, [emitted("on_log", 3, logs={"loss": 0.5})])
        await tracker.finish("finished")
    await tracker.close()
    before = [] if away else [(1, 1.0), (2, 1.0)]
    assert studio_rows(only(studio), "live") == {"loss": [*before, (3, 0.5)]}


async def test_more_plots_than_studio_shows_are_left_out_and_said(
    studio: Studio, front: Front
) -> None:
    tracker = make()
    logs = {f"m{number:03d}": float(number) for number in range(MAX_NUMBER_OF_PLOTS + 5)}
    for step in range(1, 3):
        await deliver(tracker, [emitted("on_log", step, logs=logs)])
    await tracker.finish("finished")
    await tracker.close()
    assert len(only(studio).plots) == MAX_NUMBER_OF_PLOTS
    assert len(tables(LIVE)) == MAX_NUMBER_OF_PLOTS + 5
    assert (tracker.rejected, studio.problems) == (5, [])


def test_twenty_thousand_steps_arrive_within_studio_s_limits(
    studio: Studio, front: Front, tmp_path: Path
) -> None:
    with running(make(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step in range(1, 20_001):
            run.step(logs={"loss": 1 / step, "learning_rate": 0.25 * step})
        run.emit("on_train_end")
        assert run.flush(60)
    check(studio)
    assert tables(LIVE)["loss"] == [(step, 1 / step) for step in range(1, 20_001)]
    assert len(rows_sent(studio)) == 40_000
    assert only(studio).step == 20_000


def test_a_run_that_failed_is_over_for_studio_too(
    studio: Studio, front: Front, tmp_path: Path
) -> None:
    def train() -> None:
        with asynccb.CallbackDispatcher([make()], directory=tmp_path / "runs") as run:
            run.step(logs={"loss": 1.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    check(studio)


# -- what is found around the working directory ----------------------------------------------------


def in_git(folder: Path, commit: str = "ab" * 20) -> None:
    git = folder / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/topic\n")
    (git / "refs/heads/topic").write_text(commit + "\n")
    (git / "config").write_text(
        "[core]\n\tbare = false\n"
        '[remote "origin"]\n\turl = git@127.0.0.1:ada/origin.git\n\tfetch = +refs/*:refs/*\n'
        '[remote "fork"]\n\turl = https://ada:secret@127.0.0.1/ada/fork.git\n'
        '[branch "topic"]\n\tremote = fork\n'
    )


def test_commit_and_remote_are_those_of_the_branch(tmp_path: Path) -> None:
    in_git(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    found = find_repository(str(below), {})
    assert (found.git, found.dvc, found.commit) == (str(tmp_path), None, "ab" * 20)
    assert found.remote == "https://127.0.0.1/ada/fork.git"
    named = find_repository(str(below), {"DVC_EXP_GIT_REMOTE": "origin"})
    assert named.remote == "git@127.0.0.1:ada/origin.git"


def test_a_linked_working_tree_and_packed_references_are_read(tmp_path: Path) -> None:
    in_git(tmp_path / "main")
    git = tmp_path / "main/.git"
    (git / "refs/heads/topic").unlink()
    (git / "packed-refs").write_text(f"# pack-refs\n{'cd' * 20} refs/heads/topic\n")
    (git / "worktrees/other").mkdir(parents=True)
    (git / "worktrees/other/HEAD").write_text("ref: refs/heads/topic\n")
    (git / "worktrees/other/commondir").write_text("../..\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / ".git").write_text(f"gitdir: {git}/worktrees/other\n")
    assert find_repository(str(other), {}).commit == "cd" * 20
    (git / "worktrees/other/HEAD").write_text("ef" * 20 + "\n")
    assert find_repository(str(other), {}).commit == "ef" * 20


def test_without_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    found = find_repository(str(tmp_path), {})
    assert (found.git, found.commit, found.remote) == (None, NO_COMMIT, None)


async def test_studio_s_settings_are_read_from_dvc_s_files(studio: Studio, tmp_path: Path) -> None:
    in_git(tmp_path)
    (tmp_path / ".dvc").mkdir()
    config = f"[studio]\n    url = {studio.url}\n    token = wrong\n"
    (tmp_path / ".dvc/config").write_text(f"[core]\n    autostage = true\n{config}")
    (tmp_path / ".dvc/config.local").write_text(f'[studio]\n    token = "{TOKEN}"\n')
    tracker = make(exp_message="m" * 100, save_dvc_exp=False)
    assert TOKEN not in json.dumps(tracker.state())
    await deliver(tracker, training(2))
    await tracker.finish("finished")
    await tracker.close()
    check(studio)
    ((repository, commit, name),) = studio.experiments
    assert (repository, commit) == ("https://127.0.0.1/ada/fork.git", "ab" * 20)
    assert name == f"run-{tracker.run.key[:8]}"
    assert only(studio).message == "m" * 72


@pytest.mark.parametrize(
    "variables",
    [
        {"DVC_STUDIO_TOKEN": ""},
        {"DVC_STUDIO_OFFLINE": "1"},
        {"DVC_STUDIO_REPO_URL": ""},
    ],
)
def test_studio_gets_nothing_without_token_or_repository_or_where_it_is_off(
    front: Front, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ASYNCCB_OFFLINE", "1")  # does not hold back what only writes files
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with asynccb.CallbackDispatcher([make()], directory=tmp_path / "runs") as run:
        run.step(logs={"loss": 1.0})
    assert [step for step, _ in tables(LIVE)["loss"]] == [1]
    assert front.requests == []


def test_within_a_pipeline_s_experiment_dvc_itself_says_when_it_begins_and_ends(
    studio: Studio, front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "12" * 20)
    monkeypatch.setenv("DVC_EXP_NAME", "tamed-heap")
    with asynccb.CallbackDispatcher([make()], directory=tmp_path / "runs") as run:
        run.step(logs={"loss": 1.0})
    assert {body["type"] for body in studio.bodies} == {"data"}
    assert [place[1:] for place in studio.experiments] == [("12" * 20, "tamed-heap")]


@pytest.mark.parametrize("url", ["studio.local", "ftp://127.0.0.1/"])
def test_an_address_that_cannot_be_studio_s_is_refused(
    front: Front, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DVC_STUDIO_URL", url)
    with pytest.raises(asynccb.ConfigurationError, match="DVC_STUDIO_URL"):
        make()
