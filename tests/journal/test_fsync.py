"""When a journal is synced to the disk, for power cuts; the kernel's calls are counted."""

from __future__ import annotations

import math
import os
from pathlib import Path

import anyio
import pytest

from asynccb._journal.writer import JournalWriter
from tests.journal.journals import append, read_all


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, as the names of files."""
    names: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


async def journal(folder: Path, fsync: float, segment_size: int = 1 << 20) -> JournalWriter:
    writer = JournalWriter(folder / "journal", segment_size, fsync=fsync)
    await writer.open()
    return writer


async def test_always_means_after_each_append(tmp_path: Path, synced: list[str]) -> None:
    writer = await journal(tmp_path, 0.0)
    await append(writer, b"first")
    before = len(synced)
    for _ in range(5):
        await append(writer, b"more")
    assert len(synced) == before + 5
    await writer.close()
    assert len(synced) == before + 5


async def test_never_means_never(tmp_path: Path, synced: list[str]) -> None:
    writer = await journal(tmp_path, math.inf, segment_size=1)
    with anyio.fail_after(10):
        await writer.keep_synced()
    for _ in range(5):
        await append(writer, b"more")
    await writer.close()
    assert synced == []


async def test_seconds_mean_a_sync_now_and_then_where_there_is_something_new(
    tmp_path: Path, synced: list[str]
) -> None:
    writer = await journal(tmp_path, 0.01)
    await append(writer, b"first")
    name = "00000000000000000000.segment"
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(writer.keep_synced)
            for count in range(1, 4):
                while synced.count(name) < count:
                    await anyio.sleep(0.001)
                await append(writer, b"more")
            while synced.count(name) < 4:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
    await writer.close()
    assert synced.count(name) == 4  # nothing new since
    assert await read_all(tmp_path / "journal", 4) == [b"first", b"more", b"more", b"more"]


async def test_a_segment_is_synced_when_the_next_one_begins_and_its_header_before_its_name(
    tmp_path: Path, synced: list[str]
) -> None:
    writer = await journal(tmp_path, 1000.0, segment_size=1)
    await append(writer, b"first")
    await append(writer, b"second")
    first, second = (f"{number:020d}.segment" for number in (0, 1))
    assert synced == [first, "journal", first, second, "journal"]
    await writer.close()


async def test_a_disk_that_refuses_to_sync_is_said_once_and_the_journal_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    writer = await journal(tmp_path, 1000.0, segment_size=1 << 20)
    await append(writer, b"first")
    monkeypatch.setattr(os, "fsync", refuse)
    await writer.close()
    monkeypatch.undo()
    assert "cannot be synced to the disk" in caplog.text
    assert await read_all(tmp_path / "journal", 1) == [b"first"]
