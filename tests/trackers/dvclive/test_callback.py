"""What is in a DVCLive directory: names, values, summaries, and whose it is."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asynccb
from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.base import Tracker
from asynccb.trackers.dvclive.folder import nested
from asynccb.trackers.dvclive.values import metric_name, split
from asynccb.trackers.dvclive.yaml_files import dump, with_entries
from tests.support.surroundings import go_home
from tests.trackers.dvclive.written import latest, tables
from tests.trackers.lane import Emitted, deliver, description, emitted, play, revived, training


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "DVC", "STUDIO_")


LIVE = Path("live")


def make(directory: Path = LIVE, **given: Any) -> Tracker:
    tracker = asynccb.DVCLiveCallback(dir=directory, **given)
    tracker.describe(description(run_name="r"))
    return tracker


def logs(first: int, last: int) -> list[Emitted]:
    return training(last - first + 1, first=first)[1:]


def losses(directory: Path = LIVE) -> list[int]:
    return [step for step, _ in tables(directory)["loss"]]


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


# -- names and values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("loss", "loss"),
        ("eval_loss", "eval/loss"),
        ("train_runtime", "train/runtime"),
        ("test_loss", "test_loss"),
        ("retrieval_acc", "retrieval/acc"),
        ("größe @ 5[%]", "größe @ 5[%]"),
        ("step", "step_"),
        ("a/timestamp", "a/timestamp_"),
    ],
)
def test_names_are_those_of_transformers_unless_a_file_cannot_have_them(
    name: str, shown: str
) -> None:
    assert metric_name(split(name)) == shown


@given(st.text(max_size=300))
def test_any_name_is_a_path_below_the_folder_that_says_so_itself(name: str) -> None:
    shown = metric_name(name)
    parts = shown.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert all(len(part.encode()) <= 200 and "\t" not in part for part in parts)
    assert os.path.normpath(shown) == shown


@given(st.lists(st.sampled_from(["a/b", "a//b", "a/./b", "a/_/b", "/a/b", "a\n/b", "a\t/b"])))
def test_names_that_differ_have_files_that_differ(names: list[str]) -> None:
    assert len({metric_name(name) for name in names}) == len(set(names))


async def test_a_resumed_training_goes_on_in_the_tables_of_names_that_are_shown_as_one() -> None:
    first = make()
    await deliver(first, [emitted("on_log", 1, logs={"train_y": 1.0, "train/y": 2.0, "Y": 3.0})])
    await first.close()
    resumed = make()
    assert resumed.resume(json.loads(json.dumps(first.state()["attributes"])))
    resumed.describe(replace(first.run, training="the second"))
    logs = {"y": 40.0, "Y": 30.0, "train/y": 20.0, "train_y": 10.0}
    await deliver(resumed, [emitted("on_log", 2, logs=logs)])
    await resumed.close()
    assert tables(LIVE) == {
        "train/y": [(1, 1.0), (2, 10.0)],
        "train/y_58517627": [(1, 2.0), (2, 20.0)],
        "Y": [(1, 3.0), (2, 30.0)],
        "y_fbdb2615": [(2, 40.0)],
    }


async def test_a_run_of_a_version_that_kept_no_names_goes_on_in_its_tables() -> None:
    first = make()
    await deliver(first, [emitted("on_log", 1, logs={"eval_y": 1.0})])
    await first.close()
    kept = first.state()
    del kept["args"]["names"], kept["attributes"]["names"]
    again = revived(first, kept)
    await deliver(again, [emitted("on_log", 2, logs={"eval_y": 2.0})])
    await again.close()
    assert tables(LIVE) == {"eval/y": [(1, 1.0), (2, 2.0)]}


async def test_names_that_share_a_curve_are_said_once_with_both_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs = {"a.b": 1.0, "a/b": 2.0}
    await deliver(make(), [emitted("on_log", step, logs=logs) for step in (1, 2)])
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "DVCLive would show 'a/b' as the curve of 'a.b'; it is called 'a/b_07f4401c' there "
        "(said once)"
    ]


async def test_values_are_written_as_they_were_logged() -> None:
    tracker = make()
    values = {
        "loss": 0.1 + 0.2,
        "count": 3,
        "huge": 10**30,
        "flag": True,
        "nan": math.nan,
        "down": -math.inf,
        "text": 'two\nlines, a\ttab and "quotes"',
    }
    await deliver(tracker, [emitted("on_log", 7, logs={**values, "list": [1], "none": None})])
    found = {name: rows for name, rows in tables(LIVE).items() if name != "nan"}
    assert found.pop("text") == [(7, 'two lines, a\ttab and "quotes"')]
    assert found == {
        "loss": [(7, 0.1 + 0.2)],
        "count": [(7, 3.0)],
        "huge": [(7, 1e30)],
        "flag": [(7, 1.0)],
        "down": [(7, -math.inf)],
    }
    assert latest(LIVE) == {**values, "nan": "nan", "down": "-inf", "step": 7}
    assert tracker.rejected == 2


def test_a_metric_that_is_a_folder_s_name_too_harms_no_other() -> None:
    assert nested({"a": 1.0, "a/b": 2.0, "c/d/e": 3.0, "step": 4}) == {
        "a/": 1.0,
        "a": {"b": 2.0},
        "c": {"d": {"e": 3.0}},
        "step": 4,
    }


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _PLAIN, max_size=4))
def test_parameters_are_read_back_as_they_were_by_both_kinds_of_yaml(
    values: dict[str, Any],
) -> None:
    import yaml
    from ruamel.yaml import YAML

    written = dump(values)
    assert YAML(typ="safe", pure=True).load(written) == values
    assert yaml.safe_load(written) == values


async def test_parameters_are_the_training_arguments_without_secrets() -> None:
    from ruamel.yaml import YAML

    tracker = asynccb.DVCLiveCallback(dir="live")
    tracker.describe(description(hub_token="hf_secret", output_dir="out"))
    await deliver(tracker, training(1))
    params = YAML(typ="safe").load(read("live/params.yaml"))
    assert params == {
        "learning_rate": 5e-4,
        "hub_token": "<HUB_TOKEN>",
        "output_dir": "out",
    }


# -- dvc.yaml --------------------------------------------------------------------------------------

THEIRS = """\
# stages of ours
stages:
  train:   # on the cluster
    cmd: python train.py
plots:
- results.csv:
    x: epoch
"""


async def test_a_dvc_yaml_that_is_there_is_added_to_and_keeps_its_comments() -> None:
    from ruamel.yaml import YAML

    write("dvc.yaml", THEIRS)
    for _ in range(2):
        await deliver(make(), training(2))
    written = read("dvc.yaml")
    assert "# stages of ours" in written
    assert "# on the cluster" in written
    assert YAML(typ="safe").load(written) == {
        "stages": {"train": {"cmd": "python train.py"}},
        "plots": [{"results.csv": {"x": "epoch"}}, {"live/plots/metrics": {"x": "step"}}],
        "params": ["live/params.yaml"],
        "metrics": ["live/metrics.json"],
    }


def test_a_dvc_yaml_that_says_it_already_is_left_as_it_is() -> None:
    entries = (["p.yaml"], ["m.json"], ["plots"], {"last": {"path": "a", "type": "model"}})
    ours = with_entries(None, *entries)
    theirs = ours.replace("p.yaml", '"p.yaml"') + "# and no more\n"
    assert with_entries(ours, *entries) == ours
    assert with_entries(theirs, *entries) == theirs


@pytest.mark.parametrize("broken", ["a: [1", "- just\n- a list\n", "plots: 3\n"])
async def test_a_dvc_yaml_that_cannot_be_added_to_is_said_once_and_stays(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    write("dvc.yaml", broken)
    tracker = make()
    for step in range(1, 4):
        await deliver(tracker, logs(step, step))
    assert read("dvc.yaml") == broken
    assert (tracker.rejected, caplog.text.count("dvc.yaml")) == (1, 1)
    assert losses() == [1, 2, 3]


async def test_a_log_before_the_training_begins_does_not_leave_the_parameters_out() -> None:
    tracker = make()
    await deliver(tracker, [emitted("on_log", 0, logs={"eval_loss": 1.0})])
    assert "params" not in read("dvc.yaml")
    await deliver(tracker, training(1))
    assert "- live/params.yaml\n" in read("dvc.yaml")


# -- whose directory it is -------------------------------------------------------------------------


def their_files() -> None:
    """Write what a `Live` leaves that was killed between a row and its summary."""
    metrics = Path("live/plots/metrics")
    metrics.mkdir(parents=True)
    (metrics / "loss.tsv").write_text("step\tloss\n0\t4.0\n1\t3.0\n2\t2.0\n3\t1.")
    (metrics / "timed.tsv").write_text("timestamp\tstep\ttimed\n1700000000000\t2\t1.0\n")
    Path("live/metrics.json").write_text('{"loss": 3.0, "other": {"x": 1}, "step": 1}')
    Path("live/params.yaml").write_text("lr: 1\n")
    Path("live/report.html").touch()


async def test_a_run_clears_what_an_earlier_one_has_left() -> None:
    their_files()
    write("live/notes.txt", "")
    await deliver(make(), logs(1, 2))
    assert set(tables(LIVE)) == {"loss", "learning_rate"}
    assert losses() == [1, 2]
    assert sorted(os.listdir(LIVE)) == [
        ".asynccb",
        "metrics.json",
        "notes.txt",
        "plots",
    ]


async def test_resume_goes_on_behind_the_last_row_and_not_behind_the_summary() -> None:
    their_files()
    tracker = make(resume=True)
    never = tracker.state()
    await deliver(tracker, [emitted("on_train_begin", 0), *logs(1, 2)])
    assert losses() == [0, 1, 2, 3, 4]
    assert latest(LIVE)["other"] == {"x": 1}
    await deliver(tracker, [emitted("on_log", 3, logs={"timed": 5.0})])
    timed = read("live/plots/metrics/timed.tsv").splitlines()
    assert timed[-1].split("\t")[1:] == ["5", "5.0"]
    assert len(timed[-1].split("\t")[0]) == 13
    before = contents()
    again = revived(tracker, never)
    events = [emitted("on_train_begin", 0), *logs(1, 2), emitted("on_log", 3, logs={"timed": 5.0})]
    await deliver(again, events)
    assert contents() == before


TWO_WIDTHS = {
    "loss": "step\tloss\n0\t4.0\n1700000000001\t1\t3.0\n2\t2.0\n",
    "timed": "timestamp\tstep\ttimed\n1700000000000\t0\t4.0\n1\t3.0\n1700000000002\t2\t2.0\n",
    "note": 'step\tnote\n0\t"a\tb"\n1\tc\n2\t"a ""quoted""\ttext"\n',
    "torn": "step\ttorn\n1\t1.0\n9\n9\t\t\n\n",
}
"""Tables as a `Live` leaves them whose `log_metric` got `timestamp=True` now and then."""


def their_tables_of_two_widths() -> None:
    metrics = Path("live/plots/metrics")
    metrics.mkdir(parents=True)
    for name, text in TWO_WIDTHS.items():
        (metrics / f"{name}.tsv").write_text(text)


async def test_resume_takes_no_step_from_rows_that_are_wider_or_narrower_than_their_header() -> (
    None
):
    their_tables_of_two_widths()
    tracker = make(resume=True)
    await deliver(tracker, [emitted("on_train_begin", 0), *logs(1, 2)])
    added = "3\t1.0\n4\t0.5\n"
    assert read("live/plots/metrics/loss.tsv") == TWO_WIDTHS["loss"] + added
    assert latest(LIVE)["step"] == 4


async def test_resume_from_a_step_drops_later_rows_and_keeps_what_is_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    their_tables_of_two_widths()
    monkeypatch.setenv("DVCLIVE_RESUME", "1")
    await deliver(make(), [emitted("on_train_begin", 1), *logs(2, 2)])
    assert read("live/plots/metrics/loss.tsv").splitlines()[1:] == [
        "0\t4.0",
        "1700000000001\t1\t3.0",
        "2\t0.5",
    ]
    assert read("live/plots/metrics/timed.tsv").splitlines()[1:] == [
        "1700000000000\t0\t4.0",
        "1\t3.0",
    ]
    assert read("live/plots/metrics/note.tsv").splitlines()[1:] == ['0\t"a\tb"', "1\tc"]
    assert read("live/plots/metrics/torn.tsv") == TWO_WIDTHS["torn"]


async def test_resume_from_a_step_replaces_the_rows_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    their_files()
    monkeypatch.setenv("DVCLIVE_RESUME", "1")
    await deliver(make(), [emitted("on_train_begin", 1), *logs(2, 4)])
    assert losses() == [0, 1, 2, 3, 4]
    assert [value for _, value in tables(LIVE)["loss"]] == [4.0, 3.0, 1 / 2, 1 / 3, 1 / 4]


async def test_a_run_whose_directory_another_has_taken_over_writes_there_no_more() -> None:
    first, second = make(), make()
    await deliver(first, logs(1, 3))
    await deliver(second, logs(1, 2))
    with pytest.raises(AccessError, match="belongs to a later run"):
        await deliver(first, logs(4, 5))
    await deliver(second, logs(3, 3))
    assert losses() == [1, 2, 3]


async def test_a_directory_that_someone_removed_is_made_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = make()
    await deliver(tracker, logs(1, 3))
    shutil.rmtree("live")
    await deliver(tracker, logs(4, 5))
    assert losses() == [4, 5]
    assert caplog.text.count("was removed or truncated") == 2  # one for each table


async def test_a_table_that_someone_cut_keeps_its_whole_rows() -> None:
    tracker = make()
    await deliver(tracker, logs(1, 3))
    write("live/plots/metrics/loss.tsv", read("live/plots/metrics/loss.tsv")[:-2])
    await deliver(tracker, logs(4, 4))
    assert losses() == [1, 2, 4]


async def test_a_full_disk_keeps_the_rows_until_there_is_space() -> None:
    tracker = make()
    await deliver(tracker, logs(1, 2))
    full = LIVE / ".metrics.json.new"
    full.symlink_to("/dev/full")
    await play(tracker, logs(3, 3))
    for _ in range(2):
        with pytest.raises(TransientError, match="No space left"):
            await tracker.flush()
    full.unlink()
    await deliver(tracker, logs(4, 4))
    assert (losses(), latest(LIVE)["step"]) == ([1, 2, 3, 4], 4)


@pytest.mark.parametrize("parent", ["file", "/proc"])
async def test_a_directory_that_cannot_be_made_gives_the_tracker_up(parent: str) -> None:
    write("file", "")
    with pytest.raises(AccessError, match="set dir to a directory that can be created"):
        await deliver(make(Path(parent, "live")), logs(1, 1))


# -- crashes ---------------------------------------------------------------------------------------

EVENTS = [
    emitted("on_train_begin", 0),
    *logs(1, 5),
    emitted("on_log", 5, logs={"eval_loss": 0.5, "note": "a\ttext", "nan": math.nan}),
    *logs(6, 8),
    emitted("on_log", 3, logs={"loss": 3.0}),
]


def contents(directory: str = "live") -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(directory).rglob("*")) if p.is_file()}


@settings(deadline=None, max_examples=25)
@given(
    acknowledged=st.integers(0, len(EVENTS)),
    shares=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    garbage=st.binary(max_size=9),
)
async def test_a_crash_at_any_byte_and_a_replay_leave_the_same_files(
    tmp_path_factory: pytest.TempPathFactory,
    acknowledged: int,
    shares: list[float],
    garbage: bytes,
) -> None:
    directory = tmp_path_factory.mktemp("live")
    tracker = make(directory, dvcyaml=directory / "dvc.yaml")
    await deliver(tracker, EVENTS[:acknowledged])
    state = json.loads(json.dumps(tracker.state()))
    before = {path: len(data) for path, data in contents(str(directory)).items()}
    await deliver(tracker, EVENTS[acknowledged:])
    await tracker.finish("finished")
    whole = contents(str(directory))
    for path, share in zip(sorted(directory.rglob("*.tsv")), shares, strict=False):
        kept, size = before.get(str(path), 0), path.stat().st_size
        if size > kept:
            os.truncate(path, kept + int((size - kept) * share))
            with path.open("ab") as file:
                file.write(garbage)
    again = revived(tracker, state)
    await deliver(again, EVENTS[acknowledged:])
    await again.finish("finished")
    assert contents(str(directory)) == whole


async def test_one_write_and_many_leave_the_same_files() -> None:
    one, many = make(Path("one")), make(Path("many"))
    await deliver(one, EVENTS)
    for event in EVENTS:
        await deliver(many, [event])
    assert [tables(Path("one"))[n] for n in ("loss", "learning_rate", "eval/loss", "note")] == [
        tables(Path("many"))[n] for n in ("loss", "learning_rate", "eval/loss", "note")
    ]
    assert latest(Path("one")) == latest(Path("many"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"log_model": "end"}, "log_model .* is 'end'; it takes True, False or 'all'"),
        ({"live": 3}, "live is a int; it takes a dvclive.Live"),
        ({"dir": ""}, "dir is ''; it takes a path"),
        ({"dir": "s3://bucket/live"}, "takes the path of a local directory"),
        ({"dvcyaml": "other.yaml"}, "a path that ends in dvc.yaml"),
        ({"exp_name": "two words"}, "a name that Git takes"),
        ({"resume": "yes"}, "resume is 'yes'; it takes True or False"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(asynccb.ConfigurationError, match=said):
        asynccb.DVCLiveCallback(**given)


@pytest.mark.parametrize(
    ("value", "events"),
    [("", set()), ("off", set()), ("1", {"on_train_end"}), ("True", {"on_train_end"}),
     ("ALL", {"on_save"})],
)  # fmt: skip
def test_the_variable_says_which_models_are_kept(
    monkeypatch: pytest.MonkeyPatch, value: str, events: set[str]
) -> None:
    monkeypatch.setenv("HF_DVCLIVE_LOG_MODEL", value)
    assert set(asynccb.DVCLiveCallback().uploads) == events


def test_a_variable_that_says_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DVCLIVE_LOG_MODEL", "maybe")
    with pytest.raises(asynccb.ConfigurationError, match="HF_DVCLIVE_LOG_MODEL"):
        asynccb.DVCLiveCallback()


def test_it_is_configured_in_a_repository_of_dvc_s(tmp_path: Path) -> None:
    assert not asynccb.DVCLiveCallback.is_configured({})
    assert asynccb.DVCLiveCallback.is_configured({"HF_DVCLIVE_LOG_MODEL": "all"})
    (tmp_path / ".dvc").mkdir()
    assert asynccb.DVCLiveCallback.is_configured({})


def test_dvclive_s_test_mode_switches_it_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DVCLIVE_TEST", "1")
    with asynccb.CallbackDispatcher(
        [asynccb.DVCLiveCallback()], directory=tmp_path / "runs"
    ) as run:
        run.step(logs={"loss": 1.0})
    assert not Path("dvclive").exists()
    assert not Path("dvc.yaml").exists()
