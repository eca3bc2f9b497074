"""
What every tracker keeps, whatever its server: the contract, run over each of `CASES`.

A tracker that is added there is held to all of this; what its server makes of names, values and
statuses has tests of the tracker's own.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import asynccb
from asynccb._ground.exceptions import TransientError
from asynccb.trackers.base import Tracker
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from tests.support.launching import environment
from tests.support.running import running
from tests.support.surroundings import go_home
from tests.support.waiting import PROMPT, eventually
from tests.trackers.contract_cases import CASES, SECRET, Case, Servers, Value, needs_flytekit
from tests.trackers.lane import (
    START,
    Emitted,
    deliver,
    description,
    emitted,
    play,
    revived,
    training,
    until_done,
)

FOREIGN = (
    "MLFLOW",
    "WANDB",
    "COMET",
    "TRACKIO",
    "SWANLAB",
    "DAGSHUB",
    "DVC",
    "STUDIO_",
    "HF_",
    "AZURE",
    "TENSORBOARD",
    "ASYNCCB",
    "CODECARBON",
    "CLEARML",
    "TRAINS",
)
"""Beginnings of variables that would change what a tracker does."""


@pytest.fixture(
    params=[pytest.param(name, marks=needs_flytekit if name == "flyte" else ()) for name in CASES]
)
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    home, folder = tmp_path / "home", tmp_path / f"{request.param}-{request.node.originalname}"[:80]
    for made in (home, folder):
        made.mkdir()
    go_home(monkeypatch, home, *FOREIGN)
    monkeypatch.chdir(folder)
    with CASES[request.param](folder, Servers(request)) as case:
        for name, value in case.variables.items():
            monkeypatch.setenv(name, value)
        yield case


@pytest.fixture
def tracker(case: Case) -> Tracker:
    made = case.make()
    made.describe(description(run_name="contract"))
    return made


def requests(case: Case) -> int:
    return 0 if case.front is None else len(case.front.requests)


CONSTRUCT = """
import json, sys
loud = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"}
def refuse(event, arguments):
    if event in loud:
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import asynccb
tracker = getattr(asynccb, sys.argv[1])(**json.loads(sys.argv[2]))
assert asynccb.TrainerCallback in type(tracker).__mro__
foreign = {"torch", "httpx", "mlflow", "wandb", "trackio", "dagshub", "azureml", "azure",
           "huggingface_hub", "tensorboard", "transformers", "comet_ml", "dvc", "dvclive",
           "ruamel", "swanlab", "codecarbon", "pandas", "flytekit", "clearml"}
print(sorted(foreign & set(sys.modules)))
"""


def test_it_is_made_without_network_and_without_the_packages_of_others(case: Case) -> None:
    made = subprocess.run(
        [sys.executable, "-c", CONSTRUCT, case.name, json.dumps(case.arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout.strip()) == (0, "[]"), made.stderr
    assert requests(case) == 0


def test_it_can_be_pickled_and_made_again_from_its_state(case: Case) -> None:
    tracker = case.make()
    state = tracker.state()
    assert json.loads(json.dumps(state)) == state
    assert pickle.loads(pickle.dumps(tracker)).state() == state
    assert type(tracker).from_state(state).state() == state


def test_it_is_configured_where_its_variables_are_and_reports_under_its_name(case: Case) -> None:
    cls = getattr(asynccb, case.name)
    if case.front is not None:
        assert cls.is_configured(os.environ)
        assert not cls.is_configured({})
    assert get_reporting_integration_callbacks(cls.name, os.environ) == [cls]
    assert cls in get_reporting_integration_callbacks("all", os.environ)


async def test_nothing_is_asked_of_the_server_before_there_is_something_to_send(
    case: Case, tracker: Tracker
) -> None:
    await tracker.flush()
    await tracker.finish("crashed")
    await tracker.close()
    assert requests(case) == 0
    assert case.read() == {}


def test_nothing_is_sent_or_written_on_other_ranks(case: Case, tmp_path: Path) -> None:
    state = asynccb.TrainerState(is_world_process_zero=False, is_local_process_zero=False)
    with asynccb.CallbackDispatcher(
        [case.make()], max_steps=3, directory=tmp_path / "runs", state=state
    ) as run:
        for step in range(1, 4):
            run.step(logs={"loss": 1 / step})
    assert requests(case) == 0
    assert case.read() == {}


async def test_a_run_that_begins_and_ends_twice_is_one_run(case: Case, tracker: Tracker) -> None:
    case.needs_logs()
    records = training(5)
    await deliver(tracker, [records[0], *records, emitted("on_train_end", 5)])
    later = training(5, first=6)
    await deliver(tracker, [*later, emitted("on_train_end", 10)])
    for _ in range(2):
        tracker.time = emitted("end", 11).time
        await tracker.finish("finished")
    await tracker.close()
    status, _ = case.only_run()
    assert status == case.finished
    assert case.steps() == list(range(1, 11))


async def test_steps_that_go_back_or_repeat_arrive_and_none_is_dropped_in_silence(
    case: Case, tracker: Tracker
) -> None:
    case.needs_logs()
    steps = [1, 2, 3, 4, 5, 3, 4, 4, 6]
    records = [
        Emitted("on_log", step, START + number * 1_000_000, {"logs": {"loss": float(number)}})
        for number, step in enumerate(steps)
    ]
    await deliver(tracker, records)
    tracker.time = emitted("end", 7).time
    await tracker.finish("finished")
    await tracker.close()
    assert tracker.rejected == 0
    seen = [(v.step, v.value) for v in case.only_run()[1] if v.name == case.loss]
    sent = [(step, float(number)) for number, step in enumerate(steps)]
    if case.replaces:  # and that is said
        sent = list(dict(sent).items())
    assert sorted(seen) == sorted(sent)


LONG = "a" * 400
ODD: dict[str, Any] = {
    "nan": math.nan,
    "up": math.inf,
    "down": -math.inf,
    "huge": 1e300,
    "tensor": torch.tensor(0.25),
    "integer tensor": torch.tensor(7),
    "flag": True,
    "number": 3,
    "text": "ein Wort \N{SNOWMAN} \ud800".encode("utf-8", "replace").decode(),
    "nested": {"a": {"b": 1.0}},
    "list": [1, 2],
    "none": None,
    LONG + "1": 1.0,
    LONG + "2": 2.0,
    "": 4.0,
    "größe @ 5[%]": 5.0,
    "a/../b//c\n\x00d": 6.0,
    "step": 7.0,
    "timestamp": 8.0,
    "_private": 9.0,
    "eval_": 10.0,
    "eval_loss": 11.0,
    "test_loss": 12.0,
    "train_loss": 13.0,
}


def test_odd_values_and_names_arrive_or_are_counted_and_harm_no_other(
    case: Case, tmp_path: Path
) -> None:
    case.needs_to_work()
    run = asynccb.CallbackDispatcher([case.make()], max_steps=3, directory=tmp_path / "runs")
    run.emit("on_train_begin")
    run.step(logs={"loss": 1.0})
    run.step(logs={"loss": torch.tensor(0.5), **ODD})
    run.step(logs={"loss": 0.25})
    run.emit("on_predict", metrics={"test_accuracy": 0.75, "test_nan": math.nan})
    run.emit("on_train_end")
    assert run.flush(60)
    run.close(timeout=30.0)
    (counts,) = run.statistics().callbacks.values()
    assert (counts.failed, counts.disabled, counts.dropped) == (0, False, 0)
    case.needs_logs()
    status, values = case.only_run()
    assert status == case.finished
    assert [v.value for v in values if v.name == case.loss] == [1.0, 0.5, 0.25]
    odd = [v for v in values if v.step == 2 and v.name != case.loss and v.name not in case.single]
    single = {v.name for v in values if v.name in case.single}
    assert len({v.name for v in odd}) == len(odd)
    assert len(odd) + len(single) + counts.rejected == len(ODD)
    found = [v.value for v in odd]
    for number in (0.25, 7.0, 3.0, 5.0, 6.0, 9.0, 11.0, 12.0):
        assert number in found
    assert len([v for v in values if v.step == 3]) == 3


APART = [
    *("精度", "召回", "Äpfel", "Öpfel", "recall>0.5", "recall<0.5", "loss@1", "loss%1"),
    *("a.b", "a/b", "a//b", "/a/b", "a/./b", "x", "x ", " x", "x/", "X", "é", "e\u0301", "É"),
    *("", " ", "_", "__", "a\nb", "a\tb", "a\0b", "a\ufffdb", LONG + "1", LONG + "2"),
    *("ftp://u:one@h/x", "ftp://u:two@h/x", "a" * 40_000 + "1", "a" * 40_000 + "2"),
    *("step", "__step", "step_", "timestamp", "timestamp_", "time", "run", "project", "metrics"),
    *("_step", "_runtime", "_timestamp", "_wandb", "global_step", "train/global_step", "wandb"),
    *("__swanlab__.cpu", "swanlab.cpu", "Summary", ":monitor:machine", "gradients/w", "sys.cpu"),
    *("args", "x/text_summary", "_hparams_/session_start_info", "single_value/x", "id", "NaN"),
    *("train_y", "train/y", "eval_y", "eval/y", "test_y", "test/y", "pretrain_y", "pretrain/y"),
]
"""Names that a service could confuse: with one another, or with names of its own."""


def curves(values: list[Value], step: int) -> dict[float, str]:
    """Return the names of a step's curves by the values that were logged."""
    return {value.value: value.name for value in values if value.step == step}


async def test_no_two_names_share_a_curve_and_a_name_keeps_its_curve_in_a_new_process(
    case: Case, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    case.needs_logs()
    await log_apart(case, tracker)
    said = [r.getMessage() for r in caplog.records if "accepts no metric called" in r.getMessage()]
    assert max(map(said.count, said), default=0) <= 2  # once in each process
    assert "u:one" not in "".join(said)
    assert max(map(len, said), default=0) < 600


async def test_no_two_names_share_a_curve_where_they_are_as_given(case: Case) -> None:
    case.needs_logs()
    case.arguments["names"] = "given"
    tracker = case.make()
    tracker.describe(description(run_name="curves"))
    await log_apart(case, tracker)


async def log_apart(case: Case, tracker: Tracker) -> None:
    """Log the names, in another order after a restart; see that each has a curve of its own."""
    names = [name for name in APART if name not in case.refused]
    logs = {name: float(number) for number, name in enumerate(names, start=1)}
    backwards = dict(reversed(logs.items()))
    await deliver(tracker, [emitted("on_train_begin", 0), emitted("on_log", 1, logs=logs)])
    await deliver(tracker, [emitted("on_log", 2, logs=logs)])
    await tracker.close()
    again = revived(tracker, tracker.state())
    await deliver(again, [emitted("on_log", 3, logs=backwards)])
    again.time = emitted("end", 4).time
    await again.finish("finished")
    await again.close()
    assert (tracker.rejected, again.rejected) == (0, 0)
    found = case.only_run()[1]
    first = curves(found, 1)
    assert sorted(first) == list(logs.values())
    assert len(set(first.values())) == len(names)
    assert curves(found, 2) == curves(found, 3) == first
    for name in ("精度", "召回", "Äpfel", "Öpfel"):  # taken everywhere, as they are
        assert first[logs[name]].rpartition("/")[2] == name


async def test_a_name_as_given_is_the_name_there(case: Case) -> None:
    case.needs_logs()
    case.arguments["names"] = "given"
    tracker = case.make()
    tracker.describe(description(run_name="given"))
    logs = {"total_loss": 1.0, "eval_loss": 2.0, "train_loss": 3.0}
    await deliver(tracker, [emitted("on_train_begin", 0), emitted("on_log", 1, logs=logs)])
    tracker.time = emitted("end", 2).time
    await tracker.finish("finished")
    await tracker.close()
    shown = curves(case.only_run()[1], 1)
    assert {name.rpartition("/")[2]: value for value, name in shown.items()} == logs


def test_the_class_chooses_the_names_where_a_tracker_is_given_none(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = getattr(asynccb, case.name)
    assert case.make().names == "grouped"
    monkeypatch.setattr(cls, "names", "given")
    made = pickle.loads(pickle.dumps(case.make()))
    monkeypatch.undo()
    for name, value in case.variables.items():
        monkeypatch.setenv(name, value)
    assert made.names == cls.from_state(made.state()).names == "given"
    case.arguments["names"] = "grouped"
    assert case.make().names == "grouped"
    case.arguments["names"] = "plain"
    with pytest.raises(asynccb.ConfigurationError, match="names is 'plain'; it takes 'grouped'"):
        case.make()


NO_METRICS: dict[str, tuple[Any, str]] = {
    "none": (None, "it is None, .* leave the key out"),
    "dict": ({"acc": 1.0}, "it is a dict, .* such as 'dict/acc'"),
    "no items": ([], "it is an empty list, .* leave the key out"),
    "list": ([1.0, 2.0], "it is a list, .* log its mean, or each item .* such as 'list/0'"),
    "text": ("best", "it is a text, .* TensorBoard, W&B, Comet, Trackio and DVCLive take texts"),
    "digits": ("0.5", r"it is a text, .* log it as a number, with float"),
}


async def test_of_a_value_that_cannot_be_taken_the_warning_says_what_to_do_instead(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.needs_logs()
    tracker = case.make()
    tracker.describe(description(run_name="values"))
    logs = {name: value for name, (value, _) in NO_METRICS.items()}
    await deliver(tracker, [emitted("on_log", step, logs={"x": 1.0, **logs}) for step in (1, 2)])
    await tracker.close()
    said = [r.getMessage() for r in caplog.records if "cannot deliver" in r.getMessage()]
    assert len(said) == tracker.rejected / 2
    for message in said:
        name = message.partition("metric '")[2].partition("'")[0]
        assert re.search(NO_METRICS[name][1], message)


async def test_a_dict_beside_a_name_that_it_would_be_taken_apart_to_is_no_silent_loss(
    case: Case, tracker: Tracker
) -> None:
    case.needs_logs()
    await deliver(tracker, [emitted("on_log", 1, logs={"x": {"y": 1.0}, "x/y": 2.0})])
    tracker.time = emitted("end", 2).time
    await tracker.finish("finished")
    await tracker.close()
    found = [value.value for value in case.only_run()[1] if value.step == 1]
    assert len([value for value in found if value in (1.0, 2.0, {"y": 1.0})]) == (
        2 - tracker.rejected
    )


async def test_lost_answers_and_replays_leave_the_state_that_one_delivery_leaves(
    case: Case, tracker: Tracker
) -> None:
    case.needs_logs()
    records = training(60)
    if case.front is not None:
        case.front.losing = True
    never = tracker.state()
    await deliver(tracker, records[:20])
    half = tracker.state()
    await deliver(tracker, records[20:40])
    await tracker.close()
    for state, first in ((half, 20), (never, 0)):
        again = revived(tracker, state)
        await deliver(again, records[first:] if first == 0 else records[first:50])
        await again.close()
    again.time = emitted("end", 61).time
    await until_done(lambda: again.finish("finished"))
    await again.close()
    assert again.rejected == 0
    status, values = case.only_run()
    assert status == case.finished
    assert [(v.step, pytest.approx(v.value)) for v in values if v.name == case.loss] == [
        (step, 1 / step) for step in range(1, 61)
    ]


async def test_an_outage_is_transient_and_ends_with_each_value_once(
    case: Case, tracker: Tracker
) -> None:
    if case.front is None:
        pytest.skip("writes files, and has no server that could be away")
    records = training(30)
    await deliver(tracker, records[:10])
    case.front.away = True
    await play(tracker, records[10:])
    for _ in range(2):
        with pytest.raises(TransientError):
            await tracker.flush()
    case.front.away = False
    await until_done(tracker.flush)
    tracker.time = emitted("end", 31).time
    await tracker.finish("finished")
    await tracker.close()
    assert case.steps() == list(range(1, 31))


def test_a_server_that_is_away_in_the_middle_of_a_run_has_each_value_once_in_the_end(
    case: Case, tmp_path: Path
) -> None:
    if case.front is None:
        pytest.skip("writes files, and has no server that could be away")
    with running(case.make(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step in range(1, 101):
            run.step(logs={"loss": 1 / step})
        assert run.flush(60)
        case.front.away = True
        for step in range(101, 201):
            run.step(logs={"loss": 1 / step})
        eventually(lambda: retried(run) >= 2)
        case.front.away = False
        run.emit("on_train_end")
        assert run.flush(60)
    assert case.only_run()[0] == case.finished
    assert case.steps() == list(range(1, 201))


def retried(run: asynccb.CallbackDispatcher) -> int:
    (counts,) = run.statistics().callbacks.values()
    return counts.retried


def test_a_secret_is_sent_but_neither_written_nor_said(
    case: Case,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if case.front is None:
        pytest.skip("needs no credentials")
    monkeypatch.setenv("ASYNCCB_JOURNAL_KEEP", "1")
    caplog.set_level(logging.DEBUG, "asynccb")
    args = asynccb.TrainingArguments(output_dir=str(tmp_path / "out"), hub_token=SECRET + "hub")
    case.front.refusing = True
    for refusing in (True, False):
        case.front.refusing = refusing
        tracker = case.make()
        with running(tracker, args=args, directory=tmp_path / "runs") as run:
            run.emit("on_train_begin")
            run.step(logs={"loss": 1.0})
            eventually(lambda run=run: settled(run))
            said = f"{tracker!r} {run!r} {run.statistics()} {vars(tracker)}"
            for pid in companions():
                said += Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            assert SECRET not in said
    sent = "".join(f"{r.target} {r.headers} {r.body!r}" for r in case.front.requests)
    assert credential_is_in(sent)
    out, err = capfd.readouterr()
    assert SECRET not in caplog.text + out + err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".segment" for path in written)
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path


def credential_is_in(sent: str) -> bool:
    """Tell whether the secret was sent, as it is or in a header of Basic authentication."""
    import base64
    import re

    encoded = re.findall(r"Basic ([A-Za-z0-9+/=]+)", sent)
    return SECRET in sent or any(SECRET.encode() in base64.b64decode(text) for text in encoded)


def settled(run: asynccb.CallbackDispatcher) -> bool:
    (counts,) = run.statistics().callbacks.values()
    return bool(counts.disabled or counts.retried or counts.delivered)


def companions() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def test_close_keeps_its_deadline_while_the_server_says_nothing(case: Case, tmp_path: Path) -> None:
    if case.front is None:
        pytest.skip("writes files, and has no server that could be silent")
    case.front.silent = True
    run = asynccb.CallbackDispatcher([case.make()], directory=tmp_path / "runs")
    run.emit("on_train_begin")
    for step in range(1, 50):
        run.step(logs={"loss": 1 / step})
    begin = time.monotonic()
    run.close(timeout=1.0)
    assert time.monotonic() - begin < PROMPT  # without a deadline it would be 120 s


def test_what_offline_held_back_is_delivered_by_sync_once(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.front is None:
        pytest.skip("writes files, offline too")
    from asynccb._cli import main

    monkeypatch.setenv("ASYNCCB_OFFLINE", "1")
    with asynccb.CallbackDispatcher(
        [case.make()], max_steps=20, directory=tmp_path / "runs"
    ) as run:
        for step in range(1, 21):
            run.step(logs={"loss": 1 / step})
    assert requests(case) == 0
    assert main(["sync", str(tmp_path / "runs")]) == 0
    assert case.only_run()[0] == case.finished
    assert case.steps() == list(range(1, 21))
