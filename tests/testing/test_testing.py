"""The test kit: what a test can see with it, and that it changes nothing for good."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
import torch

import asynccb
from asynccb._ground.exceptions import TransientError
from asynccb.delivery.rate import Bucket
from asynccb.delivery.retry import until_acknowledged
from asynccb.testing import (
    Answer,
    Clock,
    CutError,
    Recorded,
    RecordingTracker,
    in_turn,
    no_sync,
    scripted,
    serving,
    silence,
)
from tests.support.launching import environment
from tests.support.running import running
from tests.support.waiting import eventually


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/test_gpu.py has the other half")
def test_no_sync_is_refused_where_nothing_could_fail() -> None:
    with pytest.raises(asynccb.ConfigurationError, match="no CUDA device"), no_sync():
        pass


class TestRecordingTracker:
    def test_what_was_emitted_is_recorded_with_step_time_and_values(self, tmp_path: Path) -> None:
        tracker = RecordingTracker(tmp_path / "recorded")
        with running(tracker, directory=tmp_path / "runs") as run:
            run.emit("on_train_begin")
            before = time.time_ns()
            run.step(logs={"loss": 0.5}, metrics={"eval_loss": 2.0})
            after = time.time_ns()
            assert run.flush(20)
            began, ended, *rest = tracker.recorded()
        assert (began.event, began.step, began.values) == ("on_train_begin", 0, {})
        assert (ended.event, ended.step, ended.values) == ("on_step_end", 1, {})
        assert before <= ended.time <= after
        assert [(one.event, one.values) for one in rest] == [
            ("on_log", {"logs": {"loss": 0.5}}),
            ("on_log", {"logs": {"eval_loss": 2.0}}),
            ("on_evaluate", {"metrics": {"eval_loss": 2.0}}),
        ]
        assert tracker.recorded("on_evaluate") == rest[-1:]
        assert tracker.status() == "finished"

    def test_nothing_is_recorded_while_it_is_away_and_everything_when_it_is_back(
        self, tmp_path: Path
    ) -> None:
        tracker = RecordingTracker(tmp_path / "recorded")
        tracker.go_away()
        with running(tracker, directory=tmp_path / "runs") as run:
            run.step(logs={"loss": 0.5})
            eventually(lambda: run.statistics().callbacks["RecordingTracker"].retried)
            assert tracker.recorded() == []
            assert tracker.status() is None
            tracker.come_back()
            assert run.flush(20)
            assert [type(one) for one in tracker.recorded()] == [Recorded, Recorded]

    def test_it_needs_no_torch(self) -> None:
        program = "import sys, asynccb.testing; print('torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "False\n"


class TestClock:
    def test_an_hour_takes_no_time_and_is_an_hour(self) -> None:
        async def main() -> str:
            await anyio.sleep(3600)
            return "done"

        clock, begin = Clock(), time.monotonic()
        assert clock.run(main) == "done"
        assert clock.time == pytest.approx(3600)
        assert time.monotonic() - begin < 10

    def test_what_happens_at_which_time_is_the_same_each_time(self) -> None:
        def once() -> list[tuple[float, str]]:
            clock = Clock()
            seen: list[tuple[float, str]] = []

            async def repeat(name: str, pause: float) -> None:
                while clock.time < 60:
                    await anyio.sleep(pause)
                    seen.append((round(clock.time, 6), name))

            async def main() -> None:
                async with anyio.create_task_group() as group:
                    group.start_soon(repeat, "a", 7.0)
                    group.start_soon(repeat, "b", 10.0)

            clock.run(main)
            return seen

        first = once()
        assert first[:4] == [(7, "a"), (10, "b"), (14, "a"), (20, "b")]
        assert [once() for _ in range(5)] == [first] * 5

    def test_a_time_out_is_over_in_its_time(self) -> None:
        async def main() -> None:
            with pytest.raises(TimeoutError), anyio.fail_after(30):
                await anyio.sleep_forever()

        clock = Clock()
        clock.run(main)
        assert clock.time == pytest.approx(30)

    def test_retries_of_an_outage_of_hours_take_no_time(self) -> None:
        clock = Clock()
        failures: list[float] = []

        async def attempt() -> None:
            if clock.time < 7200:
                raise TransientError("away")

        def failed(error: TransientError) -> None:
            failures.append(clock.time)

        clock.run(until_acknowledged, attempt, failed)
        assert 7200 <= clock.time < 7200 + 16
        assert len(failures) > 480

    def test_rates_are_kept_on_its_time(self) -> None:
        async def main() -> None:
            for _ in range(1000):
                await bucket.take()

        clock, bucket = Clock(), Bucket(per_second=0.1, burst=10)
        clock.run(main)
        assert clock.time == pytest.approx((1000 - 10) / 0.1)

    def test_threads_that_are_awaited_get_its_patience(self) -> None:
        async def main() -> str:
            with anyio.fail_after(5):
                return await anyio.to_thread.run_sync(lambda: "from a thread")

        assert Clock(patience=10.0).run(main) == "from a thread"


class PostsMetrics(asynccb.TrainerCallback):
    """Such a callback as a user may write and want to test."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def on_log(self, args, state, control, logs=None, **kwargs):
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(self.url, json={"step": state.global_step, **logs})
            answer.raise_for_status()


class TestServer:
    def test_a_callback_of_a_user_can_be_tested_against_faults(self, tmp_path: Path) -> None:
        with serving(in_turn(Answer(), Answer(503), CutError, Answer())) as server:
            with running(PostsMetrics(server.url), directory=tmp_path) as run:
                for step in range(1, 5):
                    run.step(logs={"loss": step / 10})
                assert run.flush(20)
                counts = run.statistics().callbacks["PostsMetrics"]
            bodies = [json.loads(request.body) for request in server.requests]
        assert bodies == [{"step": step, "loss": step / 10} for step in range(1, 5)]
        assert (counts.delivered, counts.failed) == (2, 2)

    async def test_an_answer_may_be_slow_long_and_cut(self) -> None:
        slow = Answer(200, b"abc", pause=0.01)
        long = Answer(200, b"abc", times=1000)
        cut = Answer(200, b"abcdef", cut_after=3)
        async with scripted(in_turn(slow, long, cut)) as server, httpx.AsyncClient() as client:
            assert (await client.get(server.url)).text == "abc"
            assert len((await client.get(server.url)).content) == 3000
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url)

    async def test_silence_never_answers_and_ends_with_the_block(self) -> None:
        async with scripted(silence) as server, httpx.AsyncClient(timeout=0.2) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(server.url)
            assert len(server.requests) == 1
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(server.url)

    async def test_a_request_may_be_cut_in_mid_body(self) -> None:
        async with scripted(in_turn(Answer())) as server, httpx.AsyncClient() as client:
            server.cut_bodies = [10]
            with pytest.raises(httpx.TransportError):
                await client.post(server.url, content=bytes(100_000))
            assert (await client.post(server.url, content=b"x")).status_code == 200
            assert [request.body for request in server.requests] == [b"x"]
