"""What all trackers have in common: rejections, numbers, and how a server is connected to."""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from asynccb._ground.exceptions import FaultError, RejectedError, TransientError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept, KeptFile, Spool
from asynccb.delivery.client import Client
from asynccb.delivery.queue import Queue
from asynccb.trackers.base import Tracker
from asynccb.trackers.server import ServerTracker
from tests.trackers.scripted import Answer, CutError, Request, ScriptedServer, in_turn, scripted


class Plain(Tracker):
    """A tracker that sends nothing."""


@dataclass(frozen=True)
class Settings:
    address: str


class Small(ServerTracker[Client]):
    """The smallest tracker of a server: a run is begun, numbers are posted, files are put."""

    settings_type = Settings
    settings: Settings

    def __init__(self, address: str) -> None:
        self.set_up(Settings(address))

    def set_up(self, settings: Settings) -> None:
        super().set_up(settings)
        self._numbers = Queue[int](100)
        self.line = 0

    async def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:
        self._numbers.extend(range(self.line, self.line + len(self.numbers(logs))))
        self.line += len(logs)

    def connect(self) -> Client:
        return Client(self.settings.address)

    async def begin(self, client: Client) -> None:
        await client.post("begin", {})

    @property
    def pending(self) -> bool:
        return bool(self._numbers)

    async def send(self, client: Client) -> None:
        async def post(batch: Any) -> None:
            await client.post("numbers", batch)

        await self._numbers.send(post, self._refuse)

    def _refuse(self, record: int, error: RejectedError) -> None:
        self.reject(f"number {record}", str(error), cause=error.cause, record=record)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        await client.put_file(f"files/{kept.name}/{file.name}", file.path)

    async def finish(self, status: RunStatus) -> None:
        await (await self.ready()).post("finish", {"status": status})

    def attributes(self) -> dict[str, Any]:
        return {"line": self.line}


def targets(server: ScriptedServer) -> list[str]:
    return [request.target for request in server.requests]


def test_a_rejection_is_counted_each_time_and_said_once_per_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = Plain()
    with caplog.at_level(logging.WARNING, "asynccb"):
        for step in range(100):
            tracker.reject(f"step {step}", f"{step} was refused", cause="400", record={"n": step})
        tracker.reject("step 7", "it is odd")
        tracker.reject("step 7", "it is odd")
        tracker.reject("step 9", "it is odd")
    assert tracker.rejected == 103
    assert len(caplog.records) == 3


def test_causes_that_never_repeat_do_not_fill_memory_and_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = Plain()
    with caplog.at_level(logging.WARNING, "asynccb"):
        for step in range(1000):
            tracker.reject(f"step {step}", "refused")
    assert tracker.rejected == 1000
    assert len(caplog.records) == 100


def test_only_records_are_set_aside_and_taken_once() -> None:
    tracker = Plain()
    tracker.time = 17
    tracker.reject("a", "refused")
    tracker.reject("b", "400: no", record={"n": 1})
    (refusal,) = tracker.take_refusals()
    assert (refusal.tracker, refusal.what, refusal.why) == ("Plain", "b", "400: no")
    assert (refusal.time, refusal.record) == (17, {"n": 1})
    assert list(tracker.take_refusals()) == []


def test_numbers_are_told_from_other_values_which_are_rejected() -> None:
    tracker = Plain()
    assert tracker.numbers({"a": 1, "b": "text", "c": True, "d": [1]}) == {"a": 1.0, "c": 1.0}
    assert tracker.numbers(None) == {}
    assert tracker.rejected == 2


def test_a_tracker_can_be_pickled_with_what_it_has_rejected() -> None:
    tracker = Plain()
    tracker.reject("a", "refused", record=1)
    again = pickle.loads(pickle.dumps(tracker))
    assert again.rejected == 1
    assert len(list(again.take_refusals())) == 1


async def test_nothing_is_asked_of_a_server_before_there_is_something_to_send() -> None:
    async with scripted(in_turn(Answer())) as server:
        tracker = Small(server.url)
        await tracker.flush()
        assert server.requests == []
        await tracker.close()


async def test_the_run_begins_before_the_first_batch_and_is_tried_until_it_has_begun() -> None:
    async with scripted(in_turn(CutError, Answer())) as server:
        tracker = Small(server.url)
        await tracker.on_log(None, None, None, logs={"a": 1, "b": 2})
        with pytest.raises(TransientError):
            await tracker.flush()
        await tracker.flush()
        await tracker.on_log(None, None, None, logs={"a": 1})
        await tracker.flush()
        await tracker.finish("finished")
        await tracker.close()
    assert targets(server) == ["/begin", "/begin", "/numbers", "/numbers", "/finish"]
    assert [json.loads(server.requests[n].body) for n in (2, 3)] == [[0, 1], [2]]


async def test_the_run_begins_once_though_metrics_and_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_bytes(b"w")
    spool = Spool(tmp_path / "uploads" / "small")
    await spool.keep(1, 5, Folder(tmp_path / "out", "checkpoint-5"))
    kept = await spool.first()
    async with scripted(in_turn(Answer())) as server:
        tracker = Small(server.url)
        await tracker.on_log(None, None, None, logs={"a": 1})
        async with anyio.create_task_group() as group:
            group.start_soon(tracker.flush)
            group.start_soon(tracker.upload, kept)
        await tracker.close()
    assert sorted(targets(server)) == ["/begin", "/files/checkpoint-5/weights", "/numbers"]
    assert kept.pending() == []


async def test_a_file_that_is_refused_is_rejected_and_the_others_are_stored(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    spool = Spool(tmp_path / "uploads" / "small")
    await spool.keep(1, 5, Folder(tmp_path, "out"))
    kept = await spool.first()
    async with scripted(in_turn(Answer(), Answer(400, b"no"), Answer())) as server:
        tracker = Small(server.url)
        await tracker.upload(kept)
        await tracker.close()
    assert targets(server) == ["/begin", "/files/out/a", "/files/out/b"]
    assert tracker.rejected == 1
    assert kept.pending() == []


async def two_files(place: Path) -> Kept:
    for name in ("a", "b"):
        (place / name).write_text(name)
    spool = Spool(place / "uploads" / "small")
    await spool.keep(1, 5, Folder(place, "out"))
    return await spool.first()


async def test_a_file_over_which_the_server_fails_for_ever_is_rejected_and_holds_no_other_up(
    tmp_path: Path,
) -> None:
    async def script(request: Request) -> Answer:
        return Answer(500, b"oops") if request.target == "/files/out/a" else Answer()

    kept = await two_files(tmp_path)
    async with scripted(script) as server:
        tracker = Small(server.url)
        for attempt in range(10):
            assert tracker.rejected == 0
            if attempt < 9:
                with pytest.raises(FaultError, match="oops"):
                    await tracker.upload(kept)
                assert [file.name for file in kept.pending()] == ["a"]
            else:
                await tracker.upload(kept)
        await tracker.close()
    assert kept.pending() == []
    assert tracker.rejected == 1
    assert targets(server).count("/files/out/b") == 1


async def test_files_wait_for_a_server_that_takes_none(tmp_path: Path) -> None:
    kept = await two_files(tmp_path)
    async with scripted(in_turn(Answer(), Answer(500, b"oops"))) as server:
        tracker = Small(server.url)
        for _ in range(30):
            with pytest.raises(FaultError):
                await tracker.upload(kept)
        server.script = in_turn(Answer())
        await tracker.upload(kept)
        await tracker.close()
    assert tracker.rejected == 0
    assert kept.pending() == []


async def test_a_tracker_made_again_sends_the_same_bytes_for_the_same_records() -> None:
    async with scripted(in_turn(Answer())) as server:
        first = Small(server.url)
        await first.on_log(None, None, None, logs={"a": 1, "b": 2})
        await first.flush()
        kept = json.loads(json.dumps(first.state()))
        for tracker in (first, Small.from_state(kept)):
            await tracker.on_log(None, None, None, logs={"a": 1, "b": 2, "c": 3})
            await tracker.flush()
            await tracker.close()
    bodies = [request.body for request in server.requests if request.target == "/numbers"]
    assert bodies == [b"[0,1]", b"[2,3,4]", b"[2,3,4]"]
