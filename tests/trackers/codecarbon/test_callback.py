"""CodeCarbon: its settings, its table, who gets its values, and what dies without losing them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.codecarbon.table import SUMS, sums_of, write_row
from tests.support.callbacks_for_tests import FileTracker, read_lines
from tests.support.launching import environment, launch, output_of
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.support.waiting import PROMPT, eventually
from tests.trackers.lane import description, emitted, play

OFTEN = 0.2
"""Seconds between two measurements."""


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "CODECARBON")
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "40")


def table(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def carbon(path: Path) -> list[dict[str, float]]:
    """Return what a tracker has got of it, in order."""
    logs = [line["logs"] for line in read_lines(path) if "logs" in line]
    return [log for log in logs if "codecarbon/emissions" in log]


def arguments(folder: Path) -> asynccb.TrainingArguments:
    return asynccb.TrainingArguments(output_dir=str(folder / "out"))


def measuring(**given: Any) -> asynccb.CodeCarbonCallback:
    return asynccb.CodeCarbonCallback(country_iso_code="FRA", measure_power_secs=OFTEN, **given)


# -- a run, and what dies in it --------------------------------------------------------------------


def test_a_run_has_its_row_and_every_tracker_the_values_to_the_last(tmp_path: Path) -> None:
    path, out = tmp_path / "sent", tmp_path / "out" / "emissions.csv"
    with running(
        measuring(), FileTracker(str(path)), args=arguments(tmp_path), directory=tmp_path / "runs"
    ) as run:
        run.emit("on_init_end")
        run.emit("on_train_begin")

        def stepped() -> bool:
            run.step(logs={"loss": 1.0})
            return len(carbon(path)) >= 3

        eventually(stepped)
        run.emit("on_train_end")
        assert run.flush(PROMPT)
        (row,) = table(out)
        run.emit("on_train_begin")  # another training of the same run
        eventually(lambda: len(table(out)) == 2)
        run.emit("on_train_end")
    (first, second), seen = table(out), carbon(path)
    assert first == row
    assert (row["country_iso_code"], row["project_name"]) == ("FRA", "codecarbon")
    for name in SUMS:
        total = float(first[name]) + float(second[name])
        assert seen[-1][f"codecarbon/{name}"] == pytest.approx(total)
    assert seen[-1]["codecarbon/cpu_power"] == float(second["cpu_power"]) > 0
    energies = [log["codecarbon/energy_consumed"] for log in seen]
    assert energies == sorted(energies)
    assert energies[-1] > 0


def test_a_companion_that_is_killed_is_followed_by_one_that_measures_on(tmp_path: Path) -> None:
    path, out = tmp_path / "sent", tmp_path / "out" / "emissions.csv"
    tracker = FileTracker(str(path))
    with running(
        measuring(), tracker, args=arguments(tmp_path), directory=tmp_path / "runs"
    ) as run:
        run.emit("on_train_begin")
        for number in (1, 2):
            eventually(lambda number=number: stepped(run) and len(table(out)) == number)
            if number == 1:
                eventually(lambda: read_lines(path))
                os.kill(read_lines(path)[0]["pid"], signal.SIGKILL)
        run.emit("on_train_end")
    first, second = table(out)
    assert first["run_id"] != second["run_id"]
    last = carbon(path)[-1]
    for name in SUMS:
        total = float(first[name]) + float(second[name])
        assert last[f"codecarbon/{name}"] == pytest.approx(total)


def stepped(run: asynccb.CallbackDispatcher) -> bool:
    run.step(logs={"loss": 1.0})
    return True


def test_a_training_that_is_killed_is_measured_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", str(tmp_path / "carbon"))
    out = tmp_path / "carbon" / "emissions.csv"
    given = json.dumps({"country_iso_code": "FRA", "measure_power_secs": OFTEN})
    with launch("emit_to", "CodeCarbonCallback", tmp_path / "runs", 100_000, given) as trainer:
        eventually(lambda: table(out))
        trainer.kill()
    written = float(table(out)[0]["energy_consumed"])
    eventually(lambda: list((tmp_path / "runs").glob("*/cursors")) and not measured_still(tmp_path))
    (row,) = table(out)
    assert float(row["energy_consumed"]) >= written > 0


def measured_still(folder: Path) -> bool:
    from asynccb._journal.run_folder import is_live

    return any(is_live(path.parent) for path in (folder / "runs").glob("*/lock"))


SLOW = """
import os, pathlib, time
class EmissionsTracker:
    def __init__(self, **given):
        pathlib.Path(os.environ["LOOKING"]).touch()
        time.sleep(3600)
OfflineEmissionsTracker = EmissionsTracker
"""


def test_nobody_waits_for_the_look_at_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package = tmp_path / "path" / "codecarbon" / "output_methods"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(SLOW)
    (package / "__init__.py").touch()
    (package / "base_output.py").write_text("OutputMethod = str")
    monkeypatch.setenv("PYTHONPATH", str(package.parents[1]), prepend=os.pathsep)
    monkeypatch.setenv("LOOKING", str(tmp_path / "looking"))
    path = tmp_path / "sent"
    with running(
        measuring(), FileTracker(str(path)), args=arguments(tmp_path), directory=tmp_path / "runs"
    ) as run:
        run.emit("on_init_end")
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        eventually(lambda: (tmp_path / "looking").exists())
        begin = time.monotonic()
        run.emit("on_train_end")
        assert run.flush(PROMPT)
    assert time.monotonic() - begin < PROMPT
    assert "CodeCarbon has measured nothing" in caplog.text
    assert read_lines(path)[-1]["status"] == "finished"


async def test_an_old_journal_is_delivered_without_measuring(tmp_path: Path) -> None:
    state = measuring(output_dir=tmp_path / "out").state()
    tracker = asynccb.CodeCarbonCallback.from_state(json.loads(json.dumps(state)))
    tracker.describe(description())
    threads = threading.active_count()
    await play(tracker, [emitted(e, 0) for e in ("on_init_end", "on_train_begin", "on_train_end")])
    await tracker.finish("crashed")
    assert threading.active_count() == threads
    assert not (tmp_path / "out").exists()


# -- the table -------------------------------------------------------------------------------------


def test_the_table_is_the_one_that_codecarbon_writes_and_goes_on_with(tmp_path: Path) -> None:
    said, _ = output_of("trackers/codecarbon/vendor_program", tmp_path)
    kinds, rows = map(json.loads, said.splitlines())
    assert kinds == ["OfflineEmissionsTracker", "EmissionsTracker"]
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    assert ours.read_text() == theirs.read_text()
    read = table(ours)
    assert [row["run_id"] for row in read] == ["one", 'two, "quoted"', "three"]
    for row, measured in zip(read, rows, strict=False):
        assert list(row) == list(measured[-1])
        assert float(row["energy_consumed"]) == measured[-1]["energy_consumed"] > 0


def row(run_id: str, **values: Any) -> dict[str, Any]:
    return {"run_id": run_id, **dict.fromkeys(SUMS, 1.0), "country_name": None, **values}


def test_a_session_s_row_grows_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "emissions.csv"
    for name, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        write_row(path, row(name, emissions=value))
    assert [(r["run_id"], r["emissions"]) for r in table(path)] == [("a", "3.0"), ("b", "2.0")]
    assert sums_of(path, ["a", "b"])["emissions"] == 5.0
    assert sums_of(path, ["b", "c"])["emissions"] == 2.0
    assert sums_of(tmp_path / "none.csv", ["a"])["emissions"] == 0.0
    assert [p.name for p in path.parent.iterdir()] == ["emissions.csv"]


def test_a_table_with_other_columns_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    for number in range(3):
        path.write_text(f"run_id,old\nx,{number}\n")
        write_row(path, row("a"))
        assert [r["run_id"] for r in table(path)] == ["a"]
    kept = {p.name: p.read_text()[-2:-1] for p in tmp_path.glob("*.bak")}
    assert kept == {
        "emissions.csv.bak": "0",
        "emissions.csv_0.bak": "1",
        "emissions.csv_1.bak": "2",
    }


def test_processes_that_share_a_table_keep_one_another_s_rows(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    program = (
        "import json, sys; from pathlib import Path\n"
        "from asynccb.trackers.codecarbon.table import write_row\n"
        "path, name, row = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])\n"
        "for n in range(100): write_row(path, {**row, 'run_id': f'{name}{n % 20}'})"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), name, json.dumps(row(name))],
            env=environment(),
        )
        for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(r["run_id"] for r in table(path)) == sorted(
        f"{name}{n}" for name in "abc" for n in range(20)
    )


async def test_a_row_that_cannot_be_written_is_counted_and_set_aside(tmp_path: Path) -> None:
    tracker = measuring(output_dir=tmp_path / "out")
    tracker.describe(description())
    (tmp_path / "out" / "emissions.csv").mkdir(parents=True)
    offered: list[Any] = []
    tracker.offer = offered.append
    tracker._take(row("a", emissions_rate=0.5, cpu_power=2.0, gpu_power=0, ram_power=0))
    await tracker.flush()
    assert tracker.rejected == 1
    (refusal,) = tracker.take_refusals()
    assert refusal.record["run_id"] == "a"
    assert offered[0]["codecarbon/cpu_power"] == 2.0


async def test_a_resumed_training_goes_on_with_the_sums_of_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_row(tmp_path / "out" / "emissions.csv", row("before", emissions=2.0))
    write_row(tmp_path / "out" / "emissions.csv", row("of another run", emissions=4.0))
    tracker = asynccb.CodeCarbonCallback(output_dir=tmp_path / "out")
    assert tracker.resume({"sessions": ["before"], "training": True})
    tracker.describe(description())
    offered: list[Any] = []
    tracker.offer = offered.append
    now = row("now", emissions_rate=0.5, cpu_power=2.0, gpu_power=0, ram_power=0)
    tracker._take({**now, "country_name": "Canada"})
    assert offered[0]["codecarbon/emissions"] == 3.0
    assert "this machine is in Canada: nothing says where it is" in caplog.text
    assert tracker.state()["attributes"] == {"sessions": ["before"], "training": False}


# -- settings --------------------------------------------------------------------------------------


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asynccb\[codecarbon\]'"):
        asynccb.CodeCarbonCallback()
    assert not asynccb.CodeCarbonCallback.is_configured({"CODECARBON_COUNTRY_ISO_CODE": "FRA"})


@pytest.mark.parametrize(
    ("variables", "file", "offline"),
    [
        ({}, "", False),
        ({"CODECARBON_COUNTRY_ISO_CODE": "fra"}, "", True),
        ({"codecarbon_country_iso_code": "DEU"}, "", True),
        ({}, "[codecarbon]\ncountry_iso_code = FRA\n", True),
        ({"CODECARBON_CLOUD_PROVIDER": "aws", "CODECARBON_CLOUD_REGION": "eu-west-3"}, "", True),
        ({"CODECARBON_CLOUD_PROVIDER": "aws"}, "", False),
    ],
)
def test_it_asks_the_network_only_where_nothing_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    file: str,
    offline: bool,
) -> None:
    (tmp_path / ".codecarbon.config").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert asynccb.CodeCarbonCallback().settings.offline is offline


def test_what_is_given_wins_over_the_environment_and_that_over_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\ncountry_iso_code=FRA\noutput_file=mine.csv\nmeasure_power_secs=7\n"
    )
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "DEU")
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", "somewhere")
    found = asynccb.CodeCarbonCallback().settings
    assert (found.country_iso_code, found.measure_power_secs) == ("DEU", 7.0)
    assert (found.output_dir, found.output_file) == (str(tmp_path / "somewhere"), "mine.csv")
    given = asynccb.CodeCarbonCallback(
        country_iso_code="ITA", output_dir=tmp_path / "there", measure_power_secs=1
    ).settings
    assert (given.country_iso_code, given.measure_power_secs) == ("ITA", 1.0)
    assert given.output_dir == str(tmp_path / "there")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("COUNTRY_ISO_CODE", "Narnia", "'Narnia'"),
        ("COUNTRY_ISO_CODE", "XXX", "'XXX'"),
        ("MEASURE_POWER_SECS", "0", "'0'"),
        ("MEASURE_POWER_SECS", "soon", "'soon'"),
        ("TRACKING_MODE", "process", "'process'"),
        ("OUTPUT_METHODS", "csv,telegram", "'telegram'"),
        ("API_CALL_INTERVAL", "often", "'often'"),
        ("OUTPUT_DIR", "a file", "'a file'"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, said: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv(f"CODECARBON_{variable}", value)
    with pytest.raises(ConfigurationError, match=said) as caught:
        asynccb.CodeCarbonCallback()
    assert variable.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("api_key = SECRET", "line 1"),
        ("[codecarbon]\napi_key SECRET", "line 2"),
        ("[codecarbon]\napi_key = SECRET\napi_key = SECRET", "line 3"),
        ("[codecarbon]\napi_key = SECRET%", "api_key has a %"),
    ],
)
def test_a_configuration_file_that_is_none_is_refused_without_quoting_it(
    tmp_path: Path, file: str, why: str
) -> None:
    (tmp_path / ".codecarbon.config").write_text(file)
    said = rf"\.codecarbon\.config cannot be read: .*{why}"
    with pytest.raises(ConfigurationError, match=said) as caught:
        asynccb.CodeCarbonCallback()
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "csv", "outputs", "interval"),
    [
        ({}, True, [], 1),
        ({"SAVE_TO_FILE": "False"}, False, [], 1),
        ({"SAVE_TO_API": "true"}, True, ["api"], 8),
        ({"OUTPUT_METHODS": "csv, api", "API_CALL_INTERVAL": "2"}, True, ["api"], 2),
        ({"EMISSIONS_ENDPOINT": "http://127.0.0.1:1"}, True, [], 8),
    ],
)
def test_codecarbon_s_other_outputs_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    csv: bool,
    outputs: list[str],
    interval: int,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    found = asynccb.CodeCarbonCallback().settings
    assert (found.csv, found.outputs, found.live_interval) == (csv, outputs, interval)
