"""
DVCLive's tables of metrics, one a file: `plots/metrics/<name>.tsv`.

A table is a header, `step` and the last part of the name, and a row for each log (3.49; with a
`timestamp` in front where a `Live` has made the file so). Promises: what `flush` has written is
whole when it returns; rows that come again go to the same place, so that no row is there twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from asynccb.trackers.dvclive.values import cell
from asynccb.trackers.shared.offset_file import ShortFileError, classified, write_now

logger = logging.getLogger("asynccb")

FOLDER: Final = "plots/metrics"
_SUFFIX: Final = ".tsv"
HINT: Final = "give a directory that can be made and written as dir"


@dataclass
class Table:
    """Say how far one file has come."""

    offset: int = 0
    """Bytes that are acknowledged."""
    sent: int = 0
    """Bytes whose rows DVC Studio has."""
    stamped: bool = False
    """Whether its rows begin with a time, in milliseconds."""

    @property
    def lacks(self) -> bool:
        """Whether there are rows that DVC Studio has not got."""
        return self.sent < self.offset


class Tables:
    """Write the tables of one directory."""

    def __init__(self, directory: str) -> None:
        self._folder = Path(directory, FOLDER)
        self.known: dict[str, Table] = {}
        """By the metric's name, in the order in which they came."""
        self._rows: dict[str, bytearray] = {}

    def path(self, name: str) -> Path:
        """Return a metric's file."""
        return self._folder / (name + _SUFFIX)

    def __bool__(self) -> bool:
        """Whether rows wait to be written."""
        return bool(self._rows)

    def add(self, name: str, step: int, milliseconds: int, value: float | str) -> None:
        """Gather a row; the directory must be open, or be opened before the flush."""
        rows = self._rows.setdefault(name, bytearray())
        # Whether it has a time is known when the file is: both ways are kept until then.
        rows += f"{milliseconds}\t{step}\t{cell(value)}\n".encode()

    async def flush(self) -> None:
        """Write all rows, one write for each file; raises as `classified` does."""
        for name in self._rows:
            self.known.setdefault(name, Table())
        await to_thread.run_sync(self._write)
        self._rows.clear()

    def attributes(self) -> dict[str, list[Any]]:
        """Return how far each table has come, as plain data."""
        return {name: [t.offset, t.sent, t.stamped] for name, t in self.known.items()}

    def restore(self, attributes: Mapping[str, list[Any]]) -> None:
        """Take that back."""
        self.known = {name: Table(*values) for name, values in attributes.items()}

    def find(self) -> dict[str, Table]:
        """Return the tables that are in the directory, each up to its last whole row."""
        found: dict[str, Table] = {}
        for path in sorted(self._folder.rglob(f"*{_SUFFIX}")):
            data = path.read_bytes()
            header = data.partition(b"\n")[0]
            name = path.relative_to(self._folder).as_posix().removesuffix(_SUFFIX)
            whole = data.rfind(b"\n") + 1
            found[name] = Table(offset=whole, stamped=header.startswith(b"timestamp\t"))
        return found

    def drop_after(self, step: int) -> None:
        """Remove, behind what is acknowledged, the rows of later steps and a torn last one."""
        for name, found in self.find().items():
            table = self.known.setdefault(name, Table(stamped=found.stamped))
            path = self.path(name)
            data = path.read_bytes()[: found.offset]
            head = data[: table.offset] or data[: data.find(b"\n") + 1]
            rest = data[len(head) :].splitlines(keepends=True)
            kept = head + b"".join(row for row in rest if _step_of(row, table.stamped) <= step)
            if path.stat().st_size != len(kept):
                new = path.with_name(path.name + ".new")
                new.write_bytes(kept)
                new.replace(path)
            table.offset = len(kept)

    def last_step(self) -> int:
        """Return the last step in any table of the directory; 0 where there is none."""
        last = 0
        for name, table in self.find().items():
            rows = self.path(name).read_bytes()[: table.offset].splitlines()[1:]
            last = max([last, *(_step_of(row, table.stamped) for row in rows)])
        return last

    def unsent(self, name: str, most: int) -> tuple[list[dict[str, Any]], int]:
        """
        Return rows for DVC Studio, from about that many bytes, and where they end.

        Rows are whole, however long one is. What someone else has cut off the file counts as sent.
        """
        table = self.known[name]
        try:
            with open(self.path(name), "rb") as file:
                there = min(table.offset, file.seek(0, os.SEEK_END))
                start = file.seek(min(table.sent, there))
                data = file.read(min(there - start, most))
                if not data.endswith(b"\n"):
                    data += file.readline()
        except FileNotFoundError:
            return [], table.offset
        end = start + len(data)
        column = name.rpartition("/")[2]
        lines = data.decode("utf-8", "replace").split("\n")[:-1]
        rows = [row for line in lines if (row := _row(line, column)) is not None]
        return rows, end if end < there else table.offset

    def _write(self) -> None:
        for name, rows in self._rows.items():
            table, path = self.known[name], self.path(name)
            data = bytes(rows) if table.stamped else _without_times(rows)
            try:
                if table.offset == 0:
                    data = _header(name) + data
                try:
                    write_now(path, table.offset, data)
                except ShortFileError:
                    table.offset = self._go_on(name, path)
                    data = data if table.offset else _header(name) + data
                    write_now(path, table.offset, data)
            except OSError as error:
                raise classified(path, error, HINT) from error
            table.offset += len(data)
            rows.clear()

    def _go_on(self, name: str, path: Path) -> int:
        """Return where rows go on in a file that someone else has cut or removed."""
        logger.warning(
            "%s is gone or shorter than what was written to it: what was lost stays lost", path
        )
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        self.known[name].sent = min(self.known[name].sent, end)
        return end


def _header(name: str) -> bytes:
    return f"step\t{name.rpartition('/')[2]}\n".encode()


def _without_times(rows: bytes | bytearray) -> bytes:
    return b"".join(row.partition(b"\t")[2] for row in rows.splitlines(keepends=True))


def _step_of(row: bytes, stamped: bool) -> int:
    """Return a row's step; one that cannot be read is no later than any."""
    try:
        return int(row.split(b"\t")[1 if stamped else 0])
    except (ValueError, IndexError):
        return -1


def _row(line: str, column: str) -> dict[str, Any] | None:
    """Return a row as Studio takes it; None for the header and a text, which are no plot."""
    # Only a text is quoted, so no number needs a reader of CSV, which takes no cell that is long.
    try:
        *stamp, step, value = line.split("\t")
        row: dict[str, Any] = {"timestamp": stamp[0]} if stamp else {}
        row["step"] = int(step)
        number = float(value)
    except ValueError:
        return None
    finite = number - number == 0.0
    return row | {column: number if finite else str(number)}
