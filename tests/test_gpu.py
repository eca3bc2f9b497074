"""Staging on a real CUDA device; CI has none, so these run on one before a change to it lands."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import asynccb
from asynccb.testing import no_sync
from tests.staging.device_lanes import InCompanion, OnThread
from tests.staging.wrapped import EXACT, Unreadable, distributed_logs, transformed, wrapped
from tests.support.launching import environment
from tests.support.running import companion_of
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
)


@contextmanager
def two_lanes(
    path: Path, **options: Any
) -> Iterator[tuple[asynccb.CallbackDispatcher, InCompanion, OnThread]]:
    (path / "arrived").touch()
    companion, thread = InCompanion(path / "arrived"), OnThread()
    run = asynccb.CallbackDispatcher([companion, thread], directory=path / "journal", **options)
    run._emitter._awaits_begin = False  # or the first step would emit `on_train_begin`
    try:
        yield run, companion, thread
    finally:
        run.close(timeout=20)


def arrived(lane: InCompanion) -> list[dict[str, Any]]:
    return [{key: value for key, value in logs.items() if key != "at"} for logs in lane.read()]


def test_every_value_of_every_dtype_arrives_bit_for_bit_without_a_synchronisation(
    tmp_path: Path,
) -> None:
    steps = 3000
    source = torch.randn(steps, len(DTYPES), device="cuda", dtype=torch.float64) * 100
    rows = {t: torch.rand(steps, 5, device="cuda").mul(9).to(t) for t in DTYPES}
    static = torch.zeros((), device="cuda")
    with two_lanes(tmp_path) as (run, companion, thread):
        run.step(logs={"loss": static})
        with no_sync():
            for step in range(steps):
                static.copy_(source[step, 0])
                values = {str(t): source[step, i].to(t) for i, t in enumerate(DTYPES)}
                several = {f"{t} row": row[step] for t, row in rows.items()}
                run.step(logs={"static": static, **values, **several, "host": step})
                static.fill_(-1.0)  # what comes after must not be seen
        assert run.flush(30)
        history = [{k: v for k, v in e.items() if k != "step"} for e in run.state.log_history]

    host = source.cpu()
    on_host = {t: row.tolist() for t, row in rows.items()}
    expected = [
        {
            "static": host[step, 0].float().item(),
            **{str(t): host[step, i].to(t).item() for i, t in enumerate(DTYPES)},
            **{f"{t} row": lists[step] for t, lists in on_host.items()},
            "host": step,
        }
        for step in range(steps)
    ]
    assert arrived(companion)[1:] == expected
    assert thread.seen[1:] == expected
    assert history[1:] == expected


def test_a_hundred_thousand_values_arrive_bit_for_bit_in_memory_that_stays_as_it_is(
    tmp_path: Path,
) -> None:
    steps = 100_000
    source = torch.rand(steps, device="cuda", dtype=torch.float64)
    x = torch.zeros((), device="cuda", dtype=torch.float64)
    with two_lanes(tmp_path) as (run, companion, _):
        for step in range(10):
            x.copy_(source[step])
            run.step(logs={"loss": x})
        run.flush(10)
        before = torch.cuda.memory_allocated()
        with no_sync():
            for step in range(10, steps):
                x.copy_(source[step])
                run.step(logs={"loss": x})
        assert torch.cuda.memory_allocated() == before
        assert run.flush(120)
    assert [logs["loss"] for logs in arrived(companion)] == source.tolist()


def test_tensors_with_a_graph_and_those_of_inference_are_logged_and_stay_as_they_are(
    tmp_path: Path,
) -> None:
    weight = torch.ones((), device="cuda", requires_grad=True)
    with two_lanes(tmp_path) as (run, companion, _), no_sync():
        for step in range(200):
            loss = weight * step
            with torch.inference_mode(step % 2 == 0):
                other = torch.full((), float(step), device="cuda")
                run.step(logs={"loss": loss, "other": other})
            loss.backward()
        assert run.flush(20)
    assert arrived(companion) == [{"loss": float(n), "other": float(n)} for n in range(200)]
    assert weight.grad is not None
    assert weight.grad.item() == sum(range(200))


def test_the_history_has_every_log_whenever_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "arrived").touch()
    lane = InCompanion(tmp_path / "arrived")
    source = torch.rand(2000, 2, device="cuda")
    host = source.double().tolist()
    expected = []
    with asynccb.CallbackDispatcher([lane], directory=tmp_path / "journal") as run:
        for step in range(2000):
            if step % 500 == 0:
                run.log({"host": step})
                expected.append({"host": step, "step": step})
            run.step(logs={"b": source[step, 1], "rate": 0.5, "a": source[step, 0]})
            expected.append({"b": host[step][1], "rate": 0.5, "a": host[step][0], "step": step + 1})
            if step % 7 == 0:
                assert len(run.state.log_history) == len(expected)
                assert list(run.state.log_history[-1]) == ["b", "rate", "a", "step"]
            if step % 100 == 0:
                assert run.state.log_history == expected  # which waits
        copied = copy.deepcopy(run.state)
        run.settle()
        assert copied == run.state
    assert run.state.log_history == expected
    assert all(type(entry.get("a", 0.0)) is float for entry in run.state.log_history)
    assert arrived(lane) == [{k: v for k, v in e.items() if k != "step"} for e in expected]


def test_nothing_is_allocated_on_the_device(tmp_path: Path) -> None:
    x = torch.zeros((), device="cuda")
    before = torch.cuda.memory_allocated()
    with two_lanes(tmp_path) as (run, _, _):
        for _ in range(100):
            run.step(logs={"loss": x})
        assert torch.cuda.memory_allocated() == before
        assert run.flush(20)


def test_a_log_that_changes_its_form_is_logged_as_it_is(tmp_path: Path) -> None:
    forms = [torch.float32, torch.int64, None, torch.bool, torch.float64]
    with two_lanes(tmp_path) as (run, companion, _):
        for step in range(200):
            dtype = forms[step // 3 % len(forms)]
            odd = torch.tensor(step, device="cpu") if step % 7 == 0 else step
            value = step if dtype is None else torch.full((), step, device="cuda").to(dtype)
            run.step(logs={"a": value, "b": odd})
        assert run.flush(20)
    kinds = {torch.bool: bool, torch.int64: int, None: int}
    for step, logs in enumerate(arrived(companion)):
        dtype = forms[step // 3 % len(forms)]
        kind = kinds.get(dtype, float)
        assert logs == {"a": kind(step), "b": step}
        assert type(logs["a"]) is kind


def test_a_tensor_of_any_class_dtype_and_layout_arrives_as_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = wrapped("cuda")
    plain = torch.tensor(0.5, device="cuda")
    waiting = {"sparse"}  # torch itself waits to make it dense
    quiet = {name: tensor for name, tensor in kinds.items() if name not in waiting}
    with two_lanes(tmp_path) as (run, companion, thread):
        run.step(logs={**kinds, "plain": plain})
        with no_sync():
            for _ in range(3):
                run.step(logs={**quiet, "plain": plain})
        assert run.flush(20)
    expected = [
        {name: EXACT.get(name, 3.0) for name in names} | {"plain": 0.5}
        for names in (kinds, quiet, quiet, quiet)
    ]
    assert arrived(companion) == thread.seen == expected
    assert not caplog.records


def test_the_norm_of_fsdp_arrives_as_its_number_without_a_synchronisation(tmp_path: Path) -> None:
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        whole, parts = distributed_logs("cuda")
        torch.cuda.synchronize()
        with two_lanes(tmp_path) as (run, companion, _):
            run.step(logs=whole | parts)
            with no_sync():
                run.step(logs=whole | parts)
            assert run.flush(20)
    finally:
        dist.destroy_process_group()
    norm = pytest.approx(80**0.5)
    rest = {"replicated": 3.0, "partial": 3.0, "sharded": 3.0}
    assert arrived(companion) == 2 * [{"grad_norm": norm, "norm as it is": norm, **rest}]


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "complex32": lambda: torch.tensor(1.0 + 2.0j, device="cuda").to(torch.complex32),
    "complex64": lambda: torch.tensor(1.0 + 2.0j, device="cuda"),
    "bits8": lambda: torch.ones((), dtype=torch.uint8, device="cuda").view(torch.bits8),
    "unreadable": lambda: Unreadable(torch.tensor(1.0, device="cuda")),
}


@pytest.mark.parametrize("name", list(ODD))
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_tensor_that_no_slot_can_hold_goes_on_as_text_and_ends_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    odd, plain = ODD[name](), torch.tensor(0.5, device="cuda")
    with two_lanes(tmp_path) as (run, companion, _):
        run.step(logs={"odd": plain})  # so that the name is known as one of a plain tensor
        for _ in range(3):
            run.step(logs={"odd": odd, "plain": plain})
            run.step(logs={"odd": odd})
            row = odd if name == "unreadable" else odd.reshape(1)
            run.step(logs={"odd": [row], "deep": {"er": plain}})
        assert run.flush(20)
    text = f"<{type(odd).__name__}>"
    first, *others = arrived(companion)
    assert first == {"odd": 0.5}
    for place in range(0, len(others), 3):
        assert others[place] == {"odd": text, "plain": 0.5}
        assert others[place + 1] == {"odd": text}
        assert others[place + 2]["deep"] == {"er": 0.5}
    if name.startswith("complex"):
        said = [record.getMessage() for record in caplog.records]
        assert sum("'odd'" in line and "log its .real or its .abs()" in line for line in said) == 1


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func uses it
def test_a_value_inside_of_a_transform_arrives_unless_it_is_a_batch_of_them(
    tmp_path: Path, known: bool
) -> None:
    with two_lanes(tmp_path) as (run, companion, _):
        for _ in range(3 * known):
            run.step(logs={"loss": torch.tensor(1.0, device="cuda")})
        transformed(run, "cuda")
        run.step(logs={"loss": torch.tensor(2.0, device="cuda")})
        assert run.flush(20)
    seen = [logs["loss"] for logs in arrived(companion)]
    assert seen == [*[1.0] * (3 * known), *[14.0] * 4, "<Tensor>", 2.0]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("default")  # of what the compiler imports
def test_logging_in_a_compiled_step_is_one_break_and_every_value_is_right(
    tmp_path: Path, mode: str
) -> None:
    steps = 500
    source = torch.arange(steps, dtype=torch.float32, device="cuda")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with two_lanes(tmp_path) as (run, companion, thread):

        @torch.compile(mode=mode)
        def step(x: torch.Tensor) -> torch.Tensor:
            loss = (x * 2).sum()
            run.step(logs={"loss": loss, "last": x[-1]})
            return loss + 1

        returned = [step(source[n].expand(8)).clone() for n in range(steps)]
        assert run.flush(30)
    counters = torch._dynamo.utils.counters
    assert list(counters["graph_break"].values()) == [1]
    assert counters["frames"]["total"] == 2  # the step, and the rest of it
    expected = [{"loss": 16.0 * n, "last": float(n)} for n in range(steps)]
    assert arrived(companion) == thread.seen == expected
    assert torch.stack(returned).tolist() == [16.0 * n + 1 for n in range(steps)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_values_of_several_devices_come_together_in_their_log(tmp_path: Path) -> None:
    steps = 2000
    sources = [torch.rand(steps, 3, device=f"cuda:{n}") for n in range(2)]
    host = [source.double().tolist() for source in sources]
    with two_lanes(tmp_path) as (run, companion, thread), no_sync():
        for step in range(steps):
            names = (0,) if step < 100 else (0, 1)
            with torch.cuda.device(step % 2):
                logs = {f"{n}/{i}": sources[n][step, i] for i in range(3) for n in names}
                run.step(logs=logs)
        assert run.flush(30)
    expected = [
        {f"{n}/{i}": host[n][step][i] for i in range(3) for n in ((0,) if step < 100 else (0, 1))}
        for step in range(steps)
    ]
    assert arrived(companion) == expected
    assert thread.seen == expected


def test_slots_are_used_again_only_when_they_were_read(tmp_path: Path) -> None:
    steps, width = 12_000, 20  # more than three laps of the slots
    source = torch.rand(steps, width, device="cuda")
    with two_lanes(tmp_path) as (run, companion, _):
        for step in range(steps):
            run.step(logs={f"m{i}": source[step, i] for i in range(width)})
        assert run.flush(60)
    expected = source.double().cpu().tolist()
    assert [list(logs.values()) for logs in arrived(companion)] == expected


def test_device_memory_stays_as_it_is(tmp_path: Path) -> None:
    value = torch.rand((), device="cuda")
    with two_lanes(tmp_path) as (run, _, _):
        for _ in range(10):
            run.step(logs={"loss": value})
        run.flush(10)
        before = torch.cuda.memory_allocated()
        for _ in range(20_000):
            run.step(logs={"loss": value})
        assert torch.cuda.memory_allocated() == before
        assert torch.cuda.memory_reserved() <= before + (64 << 20)


def test_a_cuda_graph_is_captured_and_replayed_while_events_are_emitted(tmp_path: Path) -> None:
    x = torch.zeros((), device="cuda")
    with two_lanes(tmp_path) as (run, companion, _):
        run.step(logs={"loss": x})
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            x.add_(1.0)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        x.zero_()
        graph = torch.cuda.CUDAGraph()
        run.step(logs={"host": 1.0})
        with torch.cuda.graph(graph):
            x.add_(1.0)
            run.emit("on_substep_end")  # an event without values of the device is fine
        with no_sync():
            for _ in range(2000):
                graph.replay()
                run.step(logs={"loss": x})
        assert run.flush(30)
    assert [logs["loss"] for logs in arrived(companion)[2:]] == [float(n) for n in range(1, 2001)]


def test_logging_a_value_of_the_device_during_a_capture_is_refused(tmp_path: Path) -> None:
    x = torch.zeros((), device="cuda")
    with two_lanes(tmp_path) as (run, _, _):
        run.step(logs={"loss": x})
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x.add_(1.0)
            with pytest.raises(asynccb.ConfigurationError, match="while a CUDA graph is captured"):
                run.step(logs={"loss": x})


def test_values_of_several_streams_keep_their_order(tmp_path: Path) -> None:
    with two_lanes(tmp_path) as (run, companion, _):
        streams = [torch.cuda.Stream() for _ in range(3)]
        for step in range(300):
            with torch.cuda.stream(streams[step % 3]):
                run.step(logs={"loss": torch.full((), float(step), device="cuda")})
        assert run.flush(20)
    assert [logs["loss"] for logs in arrived(companion)] == [float(n) for n in range(300)]


def test_a_companion_that_is_killed_loses_no_value(tmp_path: Path) -> None:
    source = torch.rand(4000, device="cuda")
    with two_lanes(tmp_path) as (run, companion, _):
        for step in range(2000):
            run.step(logs={"loss": source[step]})
        os.kill(companion_of(run).pid, signal.SIGKILL)
        for step in range(2000, 4000):
            run.step(logs={"loss": source[step]})
        assert run.flush(30)
    seen = dict.fromkeys(logs["loss"] for logs in arrived(companion))
    assert list(seen) == list(dict.fromkeys(source.double().tolist()))


def paths() -> dict[str, str]:
    return {**environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch, asynccb
from tests.staging.device_lanes import InCompanion
folder = Path(sys.argv[1])
run = asynccb.CallbackDispatcher([InCompanion(folder / "arrived")], directory=folder / "journal")
values = torch.arange(5000, device="cuda", dtype=torch.float32)
run.emit("on_train_begin")
for step in range(5000):
    run.step(logs={"loss": values[step], "host": step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_that_is_killed_loses_at_most_what_was_on_the_device(tmp_path: Path) -> None:
    (tmp_path / "arrived").touch()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    assert subprocess.run(command, env=paths(), check=False).returncode == -signal.SIGKILL
    lane = InCompanion(tmp_path / "arrived")
    eventually(lambda: len(lane.read()) == 5000, 30.0)
    found = arrived(lane)
    assert [logs["host"] for logs in found] == list(range(5000))
    landed = [logs["loss"] for logs in found if "loss" in logs]
    assert landed == [float(n) for n in range(len(landed))]
    assert len(landed) > 4000


FAILING = """
import sys
from pathlib import Path
import torch, asynccb
from tests.staging.device_lanes import InCompanion
folder = Path(sys.argv[1])
run = asynccb.CallbackDispatcher([InCompanion(folder / "arrived")], directory=folder / "journal")
run.step(logs={"loss": torch.ones((), device="cuda")})
assert run.flush(20)
torch.ones(4, device="cuda")[torch.tensor([7], device="cuda")]  # an assertion on the device
try:
    run.step(logs={"loss": torch.ones((), device="cuda")})
    float(run.state.log_history[-1]["loss"])
except RuntimeError as error:
    print("raised:", type(error).__name__)
run.close(timeout=8)
"""


def test_a_device_that_has_failed_is_waited_for_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "arrived").touch()
    command = [sys.executable, "-c", FAILING, str(tmp_path)]
    done = subprocess.run(
        command, env=paths(), check=False, capture_output=True, text=True, timeout=60
    )
    assert "raised:" in done.stdout, done.stderr
    lane = InCompanion(tmp_path / "arrived")
    assert arrived(lane)[:1] == [{"loss": 1.0}]


def test_where_the_memory_cannot_be_pinned_values_arrive_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asynccb._staging import pinned

    monkeypatch.setattr(pinned, "_register", lambda address: False)
    source = torch.rand(500, device="cuda")
    with two_lanes(tmp_path) as (run, companion, _):
        for value in source:
            run.step(logs={"loss": value})
        assert run.flush(20)
    assert [logs["loss"] for logs in arrived(companion)] == source.double().tolist()


def test_pinning_that_fails_leaves_no_cuda_error_behind(tmp_path: Path) -> None:
    from asynccb._staging import pinned

    assert not pinned._register(0)
    torch.ones(4, device="cuda").sum().item()
    torch.cuda.synchronize()


def test_a_number_that_an_inline_hook_asks_for_is_the_one_that_was_logged(tmp_path: Path) -> None:
    class Reads(asynccb.TrainerCallback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.seen.append(float(logs["loss"]))

    reads = Reads()
    run = asynccb.CallbackDispatcher([reads], directory=tmp_path)
    x = torch.zeros((), device="cuda")
    for _ in range(50):
        x.add_(0.5)
        run.step(logs={"loss": x})
    run.close()
    assert reads.seen == [0.5 * n for n in range(1, 51)]


class Regression(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.mse_loss(self.layer(x), labels)}


class Strict(asynccb.TrainerCallback):
    """Allow no synchronisation from the end of step 12, when all is warm, to the epoch's end."""

    def __init__(self) -> None:
        self.strict = no_sync()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 12:
            self.strict.__enter__()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.strict.__exit__(None, None, None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fp16": True},
        {"bf16": True, "gradient_accumulation_steps": 2},
        {"torch_compile": True, "torch_compile_mode": "reduce-overhead"},
        {"dataloader_num_workers": 2, "dataloader_pin_memory": True},
    ],
    ids=["plain", "fp16 scaler", "bf16", "compiled with graphs", "pinned by workers"],
)
@pytest.mark.filterwarnings("default")  # of what the compiler imports
def test_the_trainer_trains_and_logs_every_step_without_waiting_for_the_device(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    data = [{"x": torch.rand(8), "labels": torch.rand(1)} for _ in range(256)]
    thread = OnThread()
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        logging_steps=1,
        save_strategy="no",
        report_to=["tensorboard"],
        disable_tqdm=True,
        **options,
    )
    steps = 64 // args.gradient_accumulation_steps
    callbacks = [Strict(), thread]
    with asynccb.Trainer(Regression(), args, train_dataset=data, callbacks=callbacks) as trainer:
        trainer.train()
        assert trainer.dispatcher.flush(20)
        history = trainer.state.log_history
    assert len(history) == steps + 1
    assert all(type(entry["loss"]) is float for entry in history[:-1])
    assert len({entry["loss"] for entry in history[:-1]}) > steps // 2
    assert [logs["loss"] for logs in thread.seen[:-1]] == [e["loss"] for e in history[:-1]]


class Large(Regression):
    """A model that needs a sixth of the device's memory for each sample of a batch."""

    def forward(self, x, labels):
        sixth = torch.cuda.get_device_properties(x.device).total_memory // 6
        torch.empty(len(x) * sixth, dtype=torch.uint8, device=x.device)
        return super().forward(x, labels)


def test_a_batch_size_that_fits_into_the_memory_of_the_device_is_found(tmp_path: Path) -> None:
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        auto_find_batch_size=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = [{"x": torch.rand(8), "labels": torch.rand(1)} for _ in range(32)]
    with asynccb.Trainer(Large(), args, train_dataset=data) as trainer:
        trainer.train()
    assert trainer.state.train_batch_size in (2, 4)  # other programs may hold memory
    assert trainer.state.global_step == 32 // trainer.state.train_batch_size


class Streams(asynccb.TrainerCallback):
    """Note on which thread and stream each event comes, and copy to the host as a tracker may."""

    def __init__(self) -> None:
        self.seen: dict[str, set[tuple[bool, int]]] = {}

    def note(self, event: str) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        where = (in_main, torch.cuda.current_stream().cuda_stream)
        self.seen.setdefault(event, set()).add(where)

    def on_train_begin(self, args, state, control, **kwargs):
        self.note("train_begin")

    def on_step_end(self, args, state, control, **kwargs):
        self.note("step_end")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.note("log")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.note("evaluate")


def streams_of(path: Path, work: Callable[[], Any]) -> set[int]:
    """Return the numbers of the streams of all kernels and copies that the work starts."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    profile.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    kinds = ("kernel", "gpu_memcpy", "gpu_memset")
    return {event["args"]["stream"] for event in events if event.get("cat") in kinds}


@pytest.mark.filterwarnings("default")  # of what the profiler imports
def test_the_steps_of_the_trainer_and_its_copies_run_on_a_stream_of_its_own_in_the_main_thread(
    tmp_path: Path,
) -> None:
    data = [{"x": torch.rand(8), "labels": torch.rand(1)} for _ in range(32)]
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=8,
        per_device_train_batch_size=4,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    streams, thread = Streams(), OnThread()
    model = Regression()
    model.register_forward_pre_hook(lambda *_: streams.note("forward"))
    with asynccb.Trainer(
        model, args, train_dataset=data, eval_dataset=data[:8], callbacks=[streams, thread]
    ) as trainer:
        torch.cuda.synchronize()
        used = streams_of(tmp_path / "train.json", trainer.train)
        assert trainer.dispatcher.flush(20)
    outer = streams_of(tmp_path / "outer.json", lambda: torch.ones(4, device="cuda") + 1)
    assert len(outer) == len(used) == 1
    assert not used & outer
    default = torch.cuda.default_stream().cuda_stream
    assert torch.cuda.current_stream().cuda_stream == default
    places = set().union(*streams.seen.values())
    assert set(streams.seen) == {"train_begin", "forward", "step_end", "log", "evaluate"}
    assert len(places) == 1
    in_main, stream = places.pop()
    assert in_main
    assert stream != default


class Diverged(Regression):
    def forward(self, x, labels):
        return {"loss": super().forward(x, labels)["loss"] * float("nan")}


def test_a_loss_that_is_nan_is_said_and_counted_without_waiting_for_the_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = asynccb.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = [{"x": torch.rand(8), "labels": torch.rand(1)} for _ in range(128)]
    with asynccb.Trainer(Diverged(), args, train_dataset=data, callbacks=[Strict()]) as trainer:
        trainer.train()
    assert {entry["loss"] for entry in trainer.state.log_history if "loss" in entry} == {0.0}
    assert caplog.text.count("Diverged: 'loss' was NaN or infinite in 1 of 1 batches") == 1
    assert trainer.dispatcher.statistics().filtered_losses == 32


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.item(),
        lambda x: x.cpu(),
        lambda x: bool(x),
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.cuda.current_stream().synchronize(),
    ],
)
def test_no_sync_fails_at_whatever_waits_and_is_over_afterwards(wait: Any) -> None:
    x = torch.ones((), device="cuda")
    with pytest.raises((RuntimeError, AssertionError)), no_sync():
        wait(x)
    wait(x)
