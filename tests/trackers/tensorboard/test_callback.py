import json
import logging
import math
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.tensorboard import TensorBoardCallback
from tests.trackers.tensorboard.event_files import (
    START,
    Lane,
    contents,
    describe,
    events,
    files,
    points,
    single,
    training,
)


@pytest.fixture(autouse=True)
def _no_directory_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path))


def texts(directory: Path) -> dict[str, str]:
    found = {}
    for file in files(directory):
        for event in events(file):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text":
                    found[value.tag] = value.tensor.string_val[0].decode()
    return found


def session_starts(file: Path) -> list[int]:
    return [event.step for event in events(file) if event.HasField("session_log")]


def hparams(directory: Path) -> dict[str, Any]:
    return {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for file in files(directory)
        for event in events(file)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    }


async def test_every_logged_step_is_read_back_exactly_once(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver(training(0, 2000))
    assert points(tmp_path) == {
        "train/loss": [(step, single(1 / step)) for step in range(1, 2001)],
        "train/epoch": [(step, single(step / 8)) for step in range(1, 2001)],
    }


async def test_all_values_of_a_log_share_one_record_at_the_time_of_the_event(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 0))
    before = len(events(files(tmp_path)[0]))
    await lane.deliver([("on_log", 3, {"loss": 1, "note": "warm", "eval_acc": 0.5})])
    added = events(files(tmp_path)[0])[before:]
    assert [[value.tag for value in event.summary.value] for event in added] == [
        ["train/loss", "eval/acc", "train/note/text_summary"]
    ]
    assert added[0].wall_time == pytest.approx(START / 1e9 + 0.2, abs=1e-6)
    assert added[0].step == 3


async def test_a_file_starts_with_its_version_and_no_session_start(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 1))
    (file,) = files(tmp_path)
    assert events(file)[0].file_version == "brain.Event:2"
    assert session_starts(file) == []


async def test_a_file_is_named_by_time_host_and_run(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver(training(0, 1))
    assert [file.name for file in files(tmp_path)] == [
        "events.out.tfevents.1700000000.100000000.node7.01234567.0"
    ]


async def test_the_configuration_is_there_as_text_without_secrets(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 0))
    shown = {tag: json.loads(text) for tag, text in texts(tmp_path).items()}
    assert shown == {
        "args/text_summary": {
            "output_dir": str(tmp_path),
            "seed": 42,
            "hub_token": "<HUB_TOKEN>",
        },
        "model_config/text_summary": {"layers": 2, "tied": True},
    }


async def test_hyper_parameters_have_their_types_and_the_run_its_start(tmp_path: Path) -> None:
    run = describe(tmp_path, fp16=False, schedule={"warmup": 0.1}, betas=[0.9, 0.95], best=None)
    await Lane(TensorBoardCallback(logging_dir=tmp_path), run).deliver(training(0, 0))
    start = hparams(tmp_path)["_hparams_/session_start_info"].session_start_info
    assert {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()} == {
        "output_dir": str(tmp_path),
        "seed": 42.0,
        "hub_token": "<HUB_TOKEN>",
        "fp16": False,
        "schedule.warmup": 0.1,
        "betas": "[0.9, 0.95]",
        "layers": 2.0,
        "tied": True,
    }
    assert start.start_time_secs == pytest.approx(START / 1e9 + 0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("status", "shown"), [("finished", 1), ("failed", 2), ("killed", 2), ("crashed", 2)]
)
async def test_the_end_says_how_the_run_ended_and_only_once(
    lane: Lane, tmp_path: Path, status: Any, shown: int
) -> None:
    await lane.deliver(training(0, 1))
    await lane.finish(status)
    written = contents(tmp_path)
    await lane.finish(status)
    assert contents(tmp_path) == written
    assert hparams(tmp_path)["_hparams_/session_end_info"].session_end_info.status == shown


async def test_a_run_that_never_trained_or_logged_leaves_no_file(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver([("on_log", 0, {})])
    await lane.finish("crashed")
    assert files(tmp_path) == []


async def test_a_prediction_s_metrics_are_shown_as_test(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver([("on_predict", 5, {"test_acc": 0.25})])
    assert points(tmp_path) == {"test/acc": [(5, 0.25)]}


async def test_values_that_are_no_numbers_are_counted_and_warned_of_once_per_name(
    lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asynccb"):
        logs = {"shape": [1, 2], "loss": 0.5, "none": None, "huge": 10**400}
        await lane.deliver([("on_log", step, logs) for step in (1, 2)])
    assert points(tmp_path) == {"train/loss": [(1, 0.5), (2, 0.5)]}
    assert lane.tracker.rejected == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"TensorBoardCallback cannot deliver the metric {name!r}: it is {kind}, and only numbers "
        f"and texts are taken there: {instead} (said once; statistics() counts it)"
        for name, kind, instead in [
            (
                "shape",
                "a list",
                "log its mean, or each item under a name of its own, such as 'shape/0'",
            ),
            ("none", "None", "leave the key out where there is no value"),
            ("huge", "an integer above 1.8e308", "log its logarithm"),
        ]
    ]


async def test_the_event_loop_is_never_blocked(lane: Lane) -> None:
    with blockbuster_ctx():
        await lane.deliver(training(0, 3))
        await lane.finish("finished")


def test_a_process_that_only_writes_event_files_loads_no_torch_numpy_or_httpx() -> None:
    program = """
import asyncio, sys
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.trackers.tensorboard import TensorBoardCallback
assert "tensorboard" not in sys.modules
tracker = TensorBoardCallback()
tracker.describe(RunDescription(key="0" * 32, started=0, args=PlainArguments({})))
asyncio.run(tracker.on_train_begin(None, TrainerState(), None))
assert "tensorboard" in sys.modules
print(*{"torch", "numpy", "httpx"} & set(sys.modules))
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == []


async def test_odd_numbers_and_names_come_back_as_they_were(lane: Lane, tmp_path: Path) -> None:
    logs = {"größe/λ 损失": 1, "big": 2**40, "inf": math.inf, "over": 1e300, "flag": True, "": 0}
    await lane.deliver([("on_log", 1, {**logs, "nan": math.nan})])
    values = {tag: value for tag, [(_, value)] in points(tmp_path).items()}
    assert math.isnan(values.pop("train/nan"))
    assert values == {
        "train/größe/λ 损失": 1,
        "train/big": 2**40,
        "train/inf": math.inf,
        "train/over": math.inf,
        "train/flag": 1,
        "train/": 0,
    }


async def test_a_resumed_training_hides_what_follows_its_checkpoint_and_nothing_else(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 10))
    await lane.deliver(training(6, 12))
    assert [session_starts(file) for file in files(tmp_path)] == [[], [7, 7]]
    assert [step for step, _ in points(tmp_path)["train/loss"]] == list(range(1, 13))


async def test_an_evaluation_before_the_training_stays_visible(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver([("on_log", 0, {"eval_loss": 4.0})])
    await lane.deliver(training(0, 3))
    assert len(files(tmp_path)) == 1
    assert points(tmp_path)["eval/loss"] == [(0, 4.0)]


async def test_a_training_from_scratch_starts_a_new_curve(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver([("on_log", 3, {"loss": 4.0})])
    await lane.deliver(training(0, 2))
    assert points(tmp_path)["train/loss"] == [(3, 4.0)]
    assert points(tmp_path / "training-2")["train/loss"] == [(1, 1.0), (2, 0.5)]


async def test_a_second_training_is_below_the_first_and_what_follows_an_end_is_with_it(
    lane: Lane, tmp_path: Path
) -> None:
    for number in (1, 2):
        await lane.deliver([*training(0, 3), ("on_train_end", 3, {})])
        await lane.deliver([("on_log", 3, {"eval_loss": float(number)})])
    await lane.finish("finished")
    assert points(tmp_path)["eval/loss"] == [(3, 1.0)]
    assert points(tmp_path / "training-2")["eval/loss"] == [(3, 2.0)]
    assert [session_starts(file) for file in files(tmp_path)] == [[], []]
    assert lane.tracker.address == str(tmp_path)


@pytest.mark.parametrize(("ends", "shown"), [(True, 1), (False, 2)])
async def test_the_status_of_a_training_followed_by_another_is_whether_it_ended(
    lane: Lane, tmp_path: Path, ends: bool, shown: int
) -> None:
    end = [("on_train_end", 3, dict[str, Any]())] if ends else []
    await lane.deliver([*training(0, 3), *end, *training(0, 2)])
    (tmp_path / "training-2").rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert hparams(tmp_path)["_hparams_/session_end_info"].session_end_info.status == shown


async def test_a_resumed_second_training_goes_on_in_its_own_file(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver([*training(0, 4), *training(0, 10)])
    again = TensorBoardCallback(logging_dir=tmp_path)
    assert again.resume(json.loads(json.dumps(lane.tracker.state()["attributes"])))
    await Lane(again, describe(tmp_path), events=1000).deliver(training(6, 8))
    second = tmp_path / "training-2"
    assert [session_starts(file) for file in files(second)] == [[], [7, 7]]
    assert [step for step, _ in points(second)["train/loss"]] == list(range(1, 9))
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3, 4]


async def test_a_run_resumed_from_the_state_of_an_earlier_version_goes_on_in_its_directory(
    tmp_path: Path,
) -> None:
    old = "events.out.tfevents.1700000000.node7.01234567.100000000.0"
    lane = Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path))
    await lane.deliver(training(0, 8))
    (file,) = files(tmp_path)
    size = file.rename(tmp_path / old).stat().st_size
    attributes = {
        "origin": str(tmp_path),
        "root": str(tmp_path),
        "file": str(tmp_path / old),
        "offset": size,
        "count": 1,
        "step": 8,
        "trained": True,
        "ended": False,
    }
    state = {"args": {"logging_dir": str(tmp_path)}, "attributes": attributes}
    again = Lane(TensorBoardCallback.from_state(state), describe(tmp_path), lane.events)
    assert again.tracker.address == str(tmp_path)
    await again.deliver([("on_log", 9, {"loss": 0.5})])
    await again.deliver(training(5, 7))
    await again.deliver(training(0, 2))
    assert [step for step, _ in points(tmp_path)["train/loss"]] == list(range(1, 8))
    assert [step for step, _ in points(tmp_path / "training-2")["train/loss"]] == [1, 2]
    assert files(tmp_path)[0].name == old


async def test_a_file_begun_after_the_clock_was_set_back_still_sorts_behind_the_earlier_one(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 8))
    before = files(tmp_path)
    again = TensorBoardCallback(logging_dir=tmp_path)
    assert again.resume(lane.tracker.state()["attributes"])
    await Lane(again, describe(tmp_path), events=-100_000).deliver(training(5, 7))
    assert files(tmp_path)[: len(before)] == before
    assert [step for step, _ in points(tmp_path)["train/loss"]] == list(range(1, 8))


@pytest.mark.parametrize("alone", [True, False])
async def test_a_run_resumed_without_its_attributes_goes_on_in_its_directory_if_that_is_there(
    lane: Lane, tmp_path: Path, alone: bool
) -> None:
    other = replace(describe(tmp_path), key="f" * 32)
    await Lane(TensorBoardCallback(logging_dir=tmp_path), other).deliver(training(0, 2))
    if not alone:
        await lane.deliver(training(0, 10))
    again = TensorBoardCallback(logging_dir=tmp_path)
    await Lane(again, describe(tmp_path), events=1000).deliver(training(6, 8))
    assert again.address == str(tmp_path / "run-2")
    found = files(tmp_path / "run-2")
    assert [session_starts(file) for file in found] == ([[]] if alone else [[], [7, 7]])
    assert points(tmp_path / "run-2")["train/loss"][-2:] == [
        (7, single(1 / 7)),
        (8, single(1 / 8)),
    ]


async def test_a_training_that_begins_twice_before_it_logs_is_one(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver([*training(0, 0), *training(0, 3)])
    assert len(files(tmp_path)) == 1


async def test_another_run_in_a_directory_has_one_of_its_own_below(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 3))
    later = Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path), events=1000)
    await later.deliver(training(0, 1))
    await later.deliver(training(0, 2))
    await lane.deliver([("on_log", 4, {"loss": 0.5})])
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3, 4]
    assert later.tracker.address == str(tmp_path / "run-2")
    assert [step for step, _ in points(tmp_path / "run-2")["train/loss"]] == [1]
    second = tmp_path / "run-2" / "training-2"
    assert [step for step, _ in points(second)["train/loss"]] == [1, 2]


async def test_a_trial_hides_nothing_of_another_run_s(lane: Lane, tmp_path: Path) -> None:
    other = Lane(TensorBoardCallback(logging_dir=tmp_path / "trial-1"), describe(tmp_path))
    await other.deliver(training(0, 3))
    later = Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path), events=1000)
    for name in ("trial-0", "trial-1"):
        trial = {"trial_name": name, "is_hyper_param_search": True}
        await later.deliver(training(0, 1), **trial)
    assert [step for step, _ in points(tmp_path / "trial-1")["train/loss"]] == [1, 2, 3]
    assert [step for step, _ in points(tmp_path / "trial-1/run-2")["train/loss"]] == [1]


async def test_an_evaluation_alone_hides_nothing_of_an_earlier_run(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.deliver(training(0, 3))
    later = Lane(TensorBoardCallback(logging_dir=tmp_path), describe(tmp_path), events=1000)
    await later.deliver([("on_log", 0, {"eval_loss": 4.0})])
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3]
    assert points(tmp_path / "run-2")["eval/loss"] == [(0, 4.0)]


async def test_steps_of_one_tag_that_go_back_are_said_once_with_the_tag(
    lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await lane.deliver(training(0, 5))
    with caplog.at_level(logging.WARNING, "asynccb"):
        await lane.deliver([("on_log", 3, {"loss": 9.0}), ("on_log", 2, {"loss": 8.0})])
    assert len(files(tmp_path)) == 1
    assert [step for step, _ in points(tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 3, 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "the steps of train/loss went back from 5 to 3 within one training" in said
    assert "default server shows only the later ones from step 3 on" in said


async def test_steps_that_go_back_from_one_tag_to_another_are_no_fault(
    lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asynccb"):
        await lane.deliver([("on_train_begin", 0, {}), ("on_log", 5, {"a": 1})])
        await lane.deliver([("on_log", 3, {"v": 2}), ("on_log", 6, {"a": 3})])
        await lane.deliver(training(4, 4))  # resumed: what follows step 4 is replaced
        await lane.deliver([("on_log", 5, {"a": 4})])
    assert caplog.records == []
    assert points(tmp_path) == {"train/v": [(3, 2.0)], "train/a": [(5, 4.0)]}


async def test_a_run_whose_steps_went_back_still_has_an_end(lane: Lane, tmp_path: Path) -> None:
    await lane.deliver([*training(0, 5), ("on_log", 3, {"loss": 9.0})])
    await lane.finish("finished")
    assert "_hparams_/session_end_info" in hparams(tmp_path)


async def test_the_default_directory_is_named_by_the_start_of_the_run(tmp_path: Path) -> None:
    lane = Lane(TensorBoardCallback(), describe(tmp_path))
    await lane.deliver(training(0, 1))
    (file,) = files(tmp_path)
    assert file.parent.parent == tmp_path / "runs"
    assert re.fullmatch(r"Nov1[45]_\d\d-\d\d-20_node7", file.parent.name)
    assert lane.tracker.address == str(file.parent)


async def test_runs_that_begin_within_a_second_have_directories_of_their_own(
    tmp_path: Path,
) -> None:
    for number in range(12):
        lane = Lane(TensorBoardCallback(), describe(tmp_path), events=3 * number)
        await lane.deliver(training(0, 1))
        directory = Path(lane.tracker.address or "")
        assert re.fullmatch(rf".*_node7{f'-{number + 1}' * (number > 0)}", directory.name)
        assert points(directory)["train/loss"] == [(1, 1.0)]
    assert len(list((tmp_path / "runs").iterdir())) == 12
    begun = [int(path.name.split(".")[3] + path.name.split(".")[4]) for path in files(tmp_path)]
    names = sorted(path.name for path in files(tmp_path))
    assert [int(n.split(".")[3] + n.split(".")[4]) for n in names] == sorted(begun)


async def test_a_relative_output_directory_counts_from_where_the_tracker_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    state = TensorBoardCallback().state()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tracker = TensorBoardCallback.from_state(state)
    await Lane(tracker, describe(Path("out"))).deliver(training(0, 1))
    assert len(files(tmp_path / "out" / "runs")) == 1


async def test_each_trial_of_a_search_has_its_own_directory(lane: Lane, tmp_path: Path) -> None:
    for trial in ("trial-0", "trial-1"):
        await lane.deliver(training(0, 2), is_hyper_param_search=True, trial_name=trial)
    assert [file.parent.name for file in files(tmp_path)] == ["trial-0", "trial-1"]
    assert [step for step, _ in points(tmp_path / "trial-1")["train/loss"]] == [1, 2]


def test_the_variable_names_the_directory_and_its_tilde_is_expanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "~/boards")
    assert TensorBoardCallback().state()["args"] == {
        "logging_dir": os.path.join(os.path.expanduser("~"), "boards"),
        "names": "grouped",
    }


def test_a_summary_writer_gives_its_directory(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        given = TensorBoardCallback(writer, names="given").state()["args"]
        assert given == {"logging_dir": str(tmp_path), "names": "given"}


async def test_scalars_are_beside_what_a_summary_writer_of_this_process_writes(
    tmp_path: Path,
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    run = replace(describe(tmp_path), host=socket.gethostname(), pid=os.getpid())
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("mine", 2.0, 1)
        lane = Lane(TensorBoardCallback(writer), run)
        await lane.deliver(training(0, 1))
    assert points(tmp_path)["train/loss"] == [(1, 1.0)]
    assert points(tmp_path)["mine"] == [(1, 2.0)]
    elsewhere = Lane(TensorBoardCallback(logging_dir=tmp_path), replace(run, pid=1), events=99)
    await elsewhere.deliver(training(0, 1))
    assert elsewhere.tracker.address == str(tmp_path / "run-2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tb_writer": object()}, "has no log_dir"),
        ({"tb_writer": object(), "logging_dir": "x"}, "not both"),
        ({"logging_dir": 7}, "logging_dir is 7"),
        ({"logging_dir": ""}, "takes a directory's path"),
        ({"logging_dir": "s3://bucket/x"}, "local or mounted directory"),
    ],
)
def test_a_directory_that_is_none_is_refused_at_once(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TensorBoardCallback(**arguments)


def test_it_is_part_of_all_without_any_setting() -> None:
    assert TensorBoardCallback.is_configured({})


async def test_a_resumed_training_goes_on_in_the_directory_of_the_interrupted_one(
    tmp_path: Path,
) -> None:
    first = Lane(TensorBoardCallback(), describe(tmp_path))
    await first.deliver(training(0, 8))
    attributes = first.tracker.state()["attributes"]
    again = TensorBoardCallback()
    assert again.resume(attributes)
    await Lane(again, describe(tmp_path)).deliver(training(5, 9))
    assert again.address is not None
    assert again.address == first.tracker.address
    assert [step for step, _ in points(Path(again.address))["train/loss"]] == list(range(1, 10))


def test_it_does_not_where_it_was_given_another_one(tmp_path: Path) -> None:
    tracker = TensorBoardCallback(logging_dir=tmp_path / "mine")
    attributes = tracker.state()["attributes"]
    assert tracker.resume(attributes | {"root": str(tmp_path / "mine")})
    assert not tracker.resume(attributes | {"root": str(tmp_path / "other")})
