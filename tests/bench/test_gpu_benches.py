"""
The GPU benches refuse what makes no sense, read traces, sum up pairs, and draw their results.

Their figures need a GPU; here they run on the processor where that tries the same code.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHES = ("gpu_step", "gpu_ranks", "gpu_staging", "gpu_timeline")

sys.path.insert(0, str(ROOT / "bench"))  # scripts find their neighbours in the same way

import _gpu_sinks  # noqa: E402
import _gpu_trace  # noqa: E402
import gpu_ranks  # noqa: E402
import gpu_staging  # noqa: E402
import gpu_step  # noqa: E402
import gpu_timeline  # noqa: E402
from _gpu_measure import Block, Processes  # noqa: E402

PARSERS = {
    "gpu_step": gpu_step,
    "gpu_ranks": gpu_ranks,
    "gpu_staging": gpu_staging,
    "gpu_timeline": gpu_timeline,
}


def run_bench(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), *options],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("bench", BENCHES)
def test_a_bench_without_a_gpu_says_so_at_once(bench: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [bench])

    with pytest.raises(SystemExit, match="no CUDA device found"):
        PARSERS[bench].main()


@pytest.mark.parametrize(
    ("bench", "options", "word"),
    [
        ("gpu_step", ["--rounds", "0"], "--rounds"),
        ("gpu_step", ["--steps", "2"], "--steps"),
        ("gpu_step", ["--turn", "0"], "--turn"),
        ("gpu_ranks", ["--ranks", "1"], "--ranks"),
        ("gpu_step", ["--scalars", "5", "65"], "65"),
        ("gpu_step", ["--scale", "0"], "--scale"),
        ("gpu_staging", ["--queued", "0"], "--queued"),
        ("gpu_staging", ["--scalars", "0"], "--scalars"),
        ("gpu_timeline", ["--steps", "0"], "--steps"),
        ("gpu_timeline", ["--logger", "none"], "--logger"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(
    bench: str, options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        PARSERS[bench].parse(options)

    assert error.value.code == 2
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_quick_changes_the_defaults_but_not_what_was_asked_for() -> None:
    options = gpu_step.parse(["--quick", "--pairs", "7"])

    assert (options.rounds, options.pairs, options.scalars) == (1, 7, [5])


@pytest.mark.parametrize("turn", ["2", "3"], ids=["woven", "in blocks"])
def test_a_step_bench_on_the_processor_says_for_each_logger_what_came_of_it(
    turn: str, tmp_path: Path
) -> None:
    path = tmp_path / "gpu_step.json"
    sizes = ("--quick", "--pairs", "2", "--steps", "3", "--scale", "0.1", "--device", "cpu")
    sizes += ("--turn", turn)
    loggers = ("--loggers", "none", "SummaryWriter", "--workloads", "eager", "graph")

    done = run_bench("gpu_step", *sizes, *loggers, "--json", str(path))

    assert done.returncode == 1, done.stderr  # a graph needs a GPU
    rows = {(row["workload"], row["logger"]): row for row in json.loads(path.read_text())["rows"]}
    for logger in ("none", "SummaryWriter"):
        measured = rows["eager", logger]
        assert (measured["pairs"], measured["turn"]) == (2, int(turn))
        assert measured["ratio"]["least"] <= measured["ratio"]["median"]
        assert measured["host_p99_microseconds"]["least"] > 0
        assert "needs a CUDA device" in rows["graph", logger]["failed"]
    assert done.stdout.count("FAILED: ValueError") == 2


def test_a_ratio_is_taken_within_each_pair() -> None:
    def pair(without: float, logged: float) -> gpu_step.Pair:
        blocks = [Block(seconds, [seconds / 4] * 4, []) for seconds in (without, logged)]
        return gpu_step.Pair(blocks[0], blocks[1], 0.0)

    figures = gpu_step.summarize([pair(1.0, 2.0), pair(3.0, 3.0), pair(10.0, 12.5)], [])

    assert figures["ratio"].median == pytest.approx(0.8)
    assert figures["host_p99_ratio"].greatest == pytest.approx(2.0)
    assert figures["host_p99_of_all_ratio"] == pytest.approx(1.25)
    assert "gpu_p99_ratio" not in figures


def test_rows_of_other_cells_are_kept_and_those_of_the_same_cell_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu_staging.json"
    sizes = ("--device", "cpu", "--scale", "0.1", "--calls", "2", "--json", str(path), "--add")

    for scalars in ("1", "2", "2"):
        monkeypatch.setattr(sys, "argv", ["gpu_staging", *sizes, "--scalars", scalars])
        gpu_staging.main()

    rows = json.loads(path.read_text())["rows"]
    cells = [(row["scalars"], row["load"], row["way"]) for row in rows]
    assert cells == [
        (scalars, load, way)
        for scalars in (1, 2)
        for load in ("idle", "busy")
        for way in gpu_staging.WAYS
    ]


def test_a_process_that_dies_is_reported_and_replaced() -> None:
    with Processes() as processes:
        died = processes.call("one", os._exit, 3)
        after = processes.call("one", os.getpid)

    assert died.exception() is not None
    assert after.result() != os.getpid()


def test_a_sink_counts_the_scalars_of_each_path() -> None:
    import httpx

    with _gpu_sinks.sink_server() as address:
        for path in ("one", "two", "one"):
            records = [{"step": 1, "loss": 0.5, "lr": 0.1}, {"step": 2, "loss": 0.4}]
            httpx.post(f"{address}/{path}", json=records, trust_env=False).raise_for_status()

        assert _gpu_sinks.count_values(f"{address}/one") == 6
        assert _gpu_sinks.count_values(f"{address}/two") == 3


# -- traces ----------------------------------------------------------------------------------------


def event(kind: str, name: str, begin: float, duration: float, thread: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": kind, "name": name, "ts": begin, "dur": duration, "tid": thread}


def write_trace(path: Path, *events: dict[str, Any]) -> _gpu_trace.Trace:
    around = event("user_annotation", _gpu_trace.MARK, 100, 100)
    content = json.dumps({"traceEvents": [{"ph": "M"}, around, *events]})
    path.write_bytes(gzip.compress(content.encode()))
    return _gpu_trace.Trace.read(path)


def test_calls_are_counted_on_all_threads_and_only_within_the_steps(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "trace.json.gz",
        event("cuda_runtime", "cudaDeviceSynchronize", 90, 1),
        event("cuda_runtime", "cudaLaunchKernel", 110, 1),
        event("cuda_runtime", "cudaLaunchKernel", 120, 1, thread=2),
        event("cpu_op", "aten::add", 130, 1),
        event("cuda_runtime", "cudaDeviceSynchronize", 201, 1),
    )

    assert trace.calls() == {"cudaLaunchKernel": 2}
    assert trace.threads() == 2


def test_a_copy_to_memory_that_is_not_pinned_is_one_that_waits(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "trace.json.gz",
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 150, 1),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 250, 1),
    )

    rows = gpu_timeline.compare(_gpu_trace.Trace([*trace.events[:1]]), trace, 2)

    assert [(row["call"][-9:-1], row["waits"], row["with"]) for row in rows] == [
        ("Pageable", True, 0.5),
        ("> Pinned", False, 0.5),
    ]


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        ("cudaStreamSynchronize", True),
        ("cudaEventSynchronize", True),
        ("cudaMemcpy", True),
        ("cudaMemcpyAsync", False),
        ("cudaStreamWaitEvent", False),
        ("cudaLaunchKernel", False),
    ],
)
def test_a_call_that_keeps_the_host_waiting_is_known_by_its_name(call: str, waits: bool) -> None:
    assert _gpu_trace.is_waiting(call) is waits


def test_spans_are_those_that_touch_the_chosen_steps(tmp_path: Path) -> None:
    steps = [event("user_annotation", _gpu_trace.STEP, begin, 10) for begin in (110, 120, 130)]
    trace = write_trace(
        tmp_path / "trace.json.gz",
        *steps,
        event("kernel", "early", 100, 5, thread=7),
        event("kernel", "across", 118, 4, thread=7),
    )

    spans = trace.spans(1, 1)

    assert [(span["row"], span["name"], span["begin"]) for span in spans] == [
        ("host", "step", 0),
        ("stream 7", "across", -2),
    ]
