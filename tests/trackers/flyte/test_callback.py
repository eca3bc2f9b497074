"""Flyte: a task that is killed and tried again, its Deck, and uploads that are cut off."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.flyte.deck import POINTS, LogHistory, column
from asynccb.trackers.flyte.files import CheckpointSync
from asynccb.trackers.flyte.slots import link, newest_whole, put_back, write_manifest
from asynccb.trackers.shared.curve_names import CurveNames
from tests.support.launching import environment
from tests.support.waiting import eventually
from tests.trackers.contract_cases import needs_flytekit

PROGRAMS = Path(__file__).parent
ENTRY = "from flytekit.bin.entrypoint import execute_task_cmd; execute_task_cmd()"


class Attempts:
    """Run the task of `task_program.py` as Flyte's container does, attempt by attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        (folder / "inputs.pb").touch()  # an empty map of literals

    def store(self, attempt: int) -> Path:
        return self.folder / f"checkpoints-{attempt}"

    def deck(self, attempt: int) -> str:
        return (self.folder / f"output-{attempt}" / "deck.html").read_text()

    def run(self, task: str = "train", **variables: object) -> tuple[int, dict[str, Any], str]:
        """Return the exit status, what the task said, and what was logged."""
        number, self.count = self.count, self.count + 1
        earlier = str(self.store(number - 1)) if number else '""'
        command = [
            *(sys.executable, "-c", ENTRY),
            *("--inputs", "inputs.pb", "--output-prefix", str(self.folder / f"output-{number}")),
            *("--raw-output-data-prefix", "raw", "--checkpoint-path", str(self.store(number))),
            *("--prev-checkpoint", earlier),
            *("--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"),
            *("task-module", "task_program", "task-name", task),
        ]
        done = subprocess.run(
            command,
            env=environment_of_task(self.folder, number, variables),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
        return done.returncode, json.loads(said[0][5:]) if said else {}, done.stderr


def environment_of_task(folder: Path, number: int, variables: dict[str, object]) -> dict[str, str]:
    own = environment()
    return {
        **{name: value for name, value in own.items() if not name.startswith("FLYTE")},
        "PYTHONPATH": f"{own['PYTHONPATH']}{os.pathsep}{PROGRAMS}",
        "HOME": str(folder),
        "FLYTE_INTERNAL_EXECUTION_ID": "run",
        "FLYTE_INTERNAL_EXECUTION_PROJECT": "project",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": "domain",
        "FLYTE_INTERNAL_TASK_NAME": "train",
        "FLYTE_INTERNAL_TASK_VERSION": "1",
        "FLYTE_ATTEMPT_NUMBER": str(number),
        "OUT": str(folder / f"out-{number}"),
        **{name: str(value) for name, value in variables.items()},
    }


class Page(HTMLParser):
    """Read a page: its texts by element, and how many of each there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.count: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
            if self.open[-1] == "td":
                self.rows[-1].append(data)


@needs_flytekit
def test_a_task_that_is_killed_and_tried_again_goes_on_from_its_last_checkpoint(
    tmp_path: Path,
) -> None:
    attempts = Attempts(tmp_path)
    status, said, errors = attempts.run(DIE_SYNCED=10)
    assert (status, said) == (-signal.SIGKILL, {}), errors
    assert "Log History" in Page(attempts.deck(0)).texts["li"]

    status, said, errors = attempts.run()
    assert status == 0, errors
    assert said["found"] == "checkpoint-10"
    assert said["left"] == ["checkpoint-20"]  # nothing of what waited, and the older rotated away
    assert [entry["step"] for entry in said["history"]] == [*range(1, 21), 20]
    # Both are where a third attempt finds them: the one that was restored was stored again at once.
    found = newest_whole(attempts.store(1))
    assert found is not None
    assert found[1].name == "checkpoint-20"

    page = Page(attempts.deck(1))
    assert "Log History" in page.texts["li"]
    table = attempts.deck(1).partition("<caption>")[2].partition("</table>")[0]
    steps = [row[0] for row in Page(table).rows if row]
    assert steps == [str(entry["step"]) for entry in said["history"]]
    assert any(text.startswith(" ") and "at step 20" in text for text in page.texts["figcaption"])
    assert page.count["polyline"] >= 3
    assert said["weights"] == uninterrupted(tmp_path)


def uninterrupted(folder: Path) -> dict[str, float]:
    from tests.support.regression import Model, train, weights

    trainer = train(folder / "whole", model=Model(0.5), max_steps=20, logging_steps=1, save_steps=5)
    return {name: float(value) for name, value in weights(trainer).items()}


@needs_flytekit
def test_a_task_that_is_killed_in_an_upload_leaves_the_checkpoint_before_whole(
    tmp_path: Path,
) -> None:
    attempts = Attempts(tmp_path)
    status, _, errors = attempts.run("tear", DIE_TORN=attempts.store(0) / "slot-1")
    assert status == -signal.SIGKILL, errors
    store = attempts.store(0)
    assert (store / "slot-1").exists()
    assert not (store / "slot-1.json").exists()
    found = newest_whole(store)
    assert found is not None
    assert (found[0].name, found[1].name) == ("slot-0", "checkpoint-1")
    assert len(found[1].files) == 500
    assert "the task needs enable_deck=True" in errors
    assert not (tmp_path / "output-0").exists()


# -- slots -----------------------------------------------------------------------------------------


def checkpoint(directory: Path, step: int, files: int = 3) -> Path:
    folder = directory / f"checkpoint-{step}"
    (folder / "sub").mkdir(parents=True)
    for number in range(files):
        place = folder if number % 2 else folder / "sub"
        (place / f"file-{number}").write_text(f"{step}.{number} " * 3)
    return folder


class Store:
    """Store files as flytekit does in a folder: over one another, and cut off after some bytes."""

    def __init__(self, path: Path, room: float = math.inf) -> None:
        self.path = path
        self.room = room

    def save(self, given: Path) -> None:
        for file in sorted(given.rglob("*")) if given.is_dir() else [given]:
            if file.is_file():
                place = self.path / (file.relative_to(given) if given.is_dir() else file.name)
                place.parent.mkdir(parents=True, exist_ok=True)
                data = file.read_bytes()[: int(min(self.room, 1 << 20))]
                place.write_bytes(data)
                self.room -= file.stat().st_size
                if self.room < 0:
                    raise ConnectionError("cut off")


def upload(store: Store, folder: Path, step: int, slot: str) -> None:
    source = folder / f"{step}-{slot}"
    shutil.copytree(folder / f"checkpoint-{step}", source / slot)
    try:
        manifest = write_manifest(source / slot, f"checkpoint-{step}", step)
        manifest = manifest.rename(folder / manifest.name)
        store.save(source)
        store.save(manifest)
    finally:
        shutil.rmtree(source)


def test_wherever_an_upload_is_cut_off_the_last_whole_checkpoint_is_found(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        checkpoint(tmp_path, step, files=step // 5 + 1)
    plan = [(5, "slot-0"), (10, "slot-1"), (15, "slot-0"), (20, "slot-1")]
    probe = Store(tmp_path / "probe")
    sizes = []
    for step, slot in plan:
        before, probe.room = 0.0, 1e9
        upload(probe, tmp_path, step, slot)
        sizes.append(int(1e9 - probe.room - before))
    edges = [sum(sizes[:number]) + by for number in range(5) for by in (-1, 0, 1)]
    for room in sorted({*range(0, sum(sizes), 97), *edges} - {-1}):
        store, whole, used = Store(tmp_path / f"store-{room}", room), None, 0
        for (step, slot), size in zip(plan, sizes, strict=True):
            used += size
            if used <= room:
                whole = step
            try:
                upload(store, tmp_path, step, slot)
            except ConnectionError:
                break
        found = newest_whole(store.path)
        assert (found and found[1].step) == whole, room
        if found is not None:
            back = put_back(*found, tmp_path / "back")
            assert same(back, tmp_path / f"checkpoint-{whole}")


def same(one: Path, other: Path) -> bool:
    def content(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_text() for path in files}

    return content(one) == content(other)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_manifest_that_names_files_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path, 5)
    (tmp_path / "outside").write_text("x")
    upload(Store(tmp_path / "store"), tmp_path, 5, "slot-0")
    written = tmp_path / "store" / "slot-0.json"
    manifest = json.loads(written.read_text())
    manifest["files"][name] = next(iter(manifest["files"].values()))
    written.write_text(json.dumps(manifest))
    assert newest_whole(tmp_path / "store") is None


@pytest.mark.parametrize("change", [{"format": 2}, {"name": "../../home"}])
def test_a_manifest_of_another_kind_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoint(tmp_path, 5)
    upload(Store(tmp_path / "store"), tmp_path, 5, "slot-0")
    written = tmp_path / "store" / "slot-0.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | change))
    assert newest_whole(tmp_path / "store") is None


# -- the thread that uploads -----------------------------------------------------------------------


class Held(Store):
    """Hold every upload back until `open` is set, and note the slots' files that came."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = threading.Event()
        self.begun = 0
        self.failing = 0

    def save(self, given: Path) -> None:
        self.begun += 1
        self.open.wait()
        if self.failing:
            self.failing -= 1
            raise ConnectionError("away")
        super().save(given)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    store = Held(tmp_path / "store")
    yield store
    store.open.set()


def stored(store: Store) -> int | None:
    found = newest_whole(store.path)
    return found and found[1].step


def test_checkpoints_that_wait_while_a_newer_one_comes_are_left_out(
    held: Held, tmp_path: Path
) -> None:
    sync = CheckpointSync(held.save)
    for step in (5, 10, 15, 20):
        folder = checkpoint(tmp_path / "out", step)
        sync.take(folder, step)
        shutil.rmtree(folder)  # rotated away at once
        if step == 5:
            eventually(lambda: held.begun)
    held.open.set()
    sync.finish()
    assert held.begun == 4  # two checkpoints, each with its manifest
    manifests = [json.loads((held.path / f"slot-{n}.json").read_text())["step"] for n in (0, 1)]
    assert manifests == [5, 20]
    assert (stored(held), sync.synced) == (20, 20)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_store_that_fails_is_tried_again_and_the_whole_checkpoint_stays(
    held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held.open.set()
    sync = CheckpointSync(held.save)
    sync.take(checkpoint(tmp_path / "out", 5), 5)
    eventually(lambda: sync.synced == 5)
    held.failing = 2
    sync.take(checkpoint(tmp_path / "out", 10), 10)
    eventually(lambda: sync.failures == 1)
    assert stored(held) == 5
    sync.finish()
    assert (stored(held), sync.failures) == (10, 2)
    assert caplog.text.count("ConnectionError: away; the upload will be retried") == 1
    sync.take(checkpoint(tmp_path / "out", 15), 15)  # as a second training does
    sync.finish()
    assert stored(held) == 15


def test_what_is_not_stored_in_time_is_left_and_said(
    held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sync = CheckpointSync(held.save)
    sync.take(checkpoint(tmp_path / "out", 5), 5)
    eventually(lambda: held.begun)
    sync.leave()
    assert "the checkpoint of step 5 is not in Flyte's store" in caplog.text


def test_where_there_are_no_hard_links_the_files_are_copied_while_they_are_there(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*given: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    sync = CheckpointSync(held.save)
    sync.take(checkpoint(tmp_path / "out", 5), 5)
    eventually(lambda: held.begun)
    gone = checkpoint(tmp_path / "out", 10)
    sync.take(gone, 10)
    shutil.rmtree(gone)
    held.open.set()
    sync.finish()
    assert stored(held) == 5
    assert "the checkpoint of step 10 could not be uploaded" in caplog.text


def test_links_have_the_files_of_all_folders(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5)
    (folder / "pointer").symlink_to(folder / "file-1")
    link(folder, tmp_path / "linked")
    shutil.rmtree(folder)
    assert sorted(p.name for p in (tmp_path / "linked").rglob("*") if p.is_file()) == sorted(
        ["file-0", "file-1", "file-2", "pointer"]
    )


# -- the deck --------------------------------------------------------------------------------------


def test_the_page_has_a_limit_however_long_the_training_is() -> None:
    history = LogHistory()
    sizes = []
    for step in range(1, 15_001):
        history.add(step, {"loss": 1 / step, "grad_norm": step % 7})
        if step % 5_000 == 0:
            sizes.append(len(history.render()))
    assert max(sizes) < 250_000
    page = Page(history.render())
    (points,) = [f for f in page.texts["figcaption"] if "at step 15000" in f][:1]
    assert "steps 1 to 15000" in points
    assert "the last 200 of 15000 logs" in page.texts["caption"]
    assert all(len(series.points) <= POINTS for series in history._series.values())


def test_names_and_values_are_text_and_odd_numbers_harm_no_chart() -> None:
    history = LogHistory()
    evil = "</td><script>alert(1)</script>$x"
    for step, value in enumerate([math.nan, 1.0, math.inf, 1e308, -1e308], start=1):
        history.add(step, {evil: value, "text": evil, "only nan": math.nan, "none": None})
    page = Page(history.render())
    assert "script" not in page.count
    assert evil in page.texts["b"]
    assert page.texts["td"].count(evil) == 5
    assert any("2 of 5 points not finite" in text for text in page.texts["figcaption"])
    assert "nan" not in history.render().split('points="')[1].split('"')[0]


def test_a_metric_called_step_has_a_chart_and_a_column_beside_the_global_step() -> None:
    history = LogHistory()
    curves = CurveNames("Flyte's Deck", column)
    for step in (1, 2):
        history.add(step, curves.of({"step": 7.0, "精度": 1.0, "召回": 2.0}, "given"))
    page = Page(history.render())
    assert page.texts["th"] == ["step", "step_43b9fe3c", "精度", "召回"]
    assert page.texts["td"] == ["1", "7.0", "1.0", "2.0", "2", "7.0", "1.0", "2.0"]
    assert page.texts["b"] == ["step_43b9fe3c", "精度", "召回"]


# -- settings --------------------------------------------------------------------------------------


@needs_flytekit
@pytest.mark.parametrize("draws", [None, True, False])
@pytest.mark.parametrize("saves", [None, True, False])
def test_the_log_history_and_the_checkpoints_are_on_unless_switched_off(
    draws: bool | None, saves: bool | None, tmp_path: Path
) -> None:
    given = {"save_log_history": draws, "sync_checkpoints": saves}
    switches = {name: value for name, value in given.items() if value is not None}
    attempts = Attempts(tmp_path)
    status, _, errors = attempts.run("switched", SWITCHES=json.dumps(switches))
    assert status == 0, errors
    assert ("Log History" in Page(attempts.deck(0)).texts["li"]) is (draws is not False)
    store = attempts.store(0)
    assert (store.exists() and newest_whole(store) is not None) is (saves is not False)


@needs_flytekit
def test_outside_a_task_it_says_so_and_does_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = asynccb.FlyteCallback()
    assert not tracker.enabled
    assert "no Flyte task runs on this thread" in caplog.text
    assert tracker.restore_checkpoint(tmp_path) is None
    assert pickle.loads(pickle.dumps(tracker)).state() == tracker.state()


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flytekit", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asynccb\[flyte\]'"):
        asynccb.FlyteCallback()


@needs_flytekit
@pytest.mark.parametrize("given", [("yes",), (True, 1)])
def test_a_switch_that_is_none_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="take True or False"):
        asynccb.FlyteCallback(*given)


@needs_flytekit
def test_all_trackers_include_it_in_a_task_on_a_cluster() -> None:
    assert asynccb.FlyteCallback.is_configured({"FLYTE_INTERNAL_EXECUTION_ID": "run"})
    assert not asynccb.FlyteCallback.is_configured({})
