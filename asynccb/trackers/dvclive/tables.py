"""
Write DVCLive's tables of metrics, one file each: `plots/metrics/<name>.tsv`.

A table has a header, `step` and the last part of the name, and a row for each log (DVCLive 3.49).
If a `Live` has created the file with a `timestamp` column, that column is first. A `Live` may also
leave rows with and without a time in one table: a row that has another number of cells than the
header is no row for us, and stays as it is. Promises: when `flush` returns, its rows are completely
written. Rows that are delivered again overwrite themselves, so no row is there twice.
"""

from __future__ import annotations

import logging
import os
import re
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
_CELL: Final = re.compile(rb'(?:\A|\t)("(?:[^"]|"")*"(?=\t|\Z)|[^\t]*)')
"""A cell with the tab before it; a quoted one may hold tabs."""
HINT: Final = "set dir to a directory that can be created and written"


@dataclass
class Table:
    """The progress of one file."""

    offset: int = 0
    """Number of bytes that are acknowledged."""
    sent: int = 0
    """Number of bytes whose rows DVC Studio has received."""
    stamped: bool = False
    """Whether the rows begin with a time, in milliseconds."""

    @property
    def lacks(self) -> bool:
        """Whether DVC Studio has not yet received all rows."""
        return self.sent < self.offset


class Tables:
    """The tables of one directory."""

    def __init__(self, directory: str) -> None:
        self._folder = Path(directory, FOLDER)
        self.known: dict[str, Table] = {}
        """Tables by metric name, in the order of their first row."""
        self._rows: dict[str, bytearray] = {}

    def path(self, name: str) -> Path:
        """Return the path of a metric's file."""
        return self._folder / (name + _SUFFIX)

    def __bool__(self) -> bool:
        """Whether rows wait to be written."""
        return bool(self._rows)

    def add(self, name: str, step: int, milliseconds: int, value: float | str) -> None:
        """Gather a row; the directory must be opened before the flush."""
        rows = self._rows.setdefault(name, bytearray())
        # Only `_write` knows whether the file has times, so a gathered row always has one.
        rows += f"{milliseconds}\t{step}\t{cell(value)}\n".encode()

    async def flush(self) -> None:
        """Write all rows, with one write for each file; raise errors as `classified` does."""
        for name in self._rows:
            self.known.setdefault(name, Table())
        await to_thread.run_sync(self._write)
        self._rows.clear()

    def attributes(self) -> dict[str, list[Any]]:
        """Return the progress of each table, as plain data."""
        return {name: [t.offset, t.sent, t.stamped] for name, t in self.known.items()}

    def restore(self, attributes: Mapping[str, list[Any]]) -> None:
        """Restore the progress that `attributes` has returned."""
        self.known = {name: Table(*values) for name, values in attributes.items()}

    def find(self) -> dict[str, Table]:
        """Return the tables found in the directory, each up to its last whole row."""
        found: dict[str, Table] = {}
        for path in sorted(self._folder.rglob(f"*{_SUFFIX}")):
            data = path.read_bytes()
            header = data.partition(b"\n")[0]
            name = path.relative_to(self._folder).as_posix().removesuffix(_SUFFIX)
            whole = data.rfind(b"\n") + 1
            found[name] = Table(offset=whole, stamped=header.startswith(b"timestamp\t"))
        return found

    def drop_after(self, step: int) -> None:
        """Remove unacknowledged rows of later steps, and a torn last row."""
        for name, found in self.find().items():
            table = self.known.setdefault(name, Table(stamped=found.stamped))
            path = self.path(name)
            data = path.read_bytes()[: found.offset]
            head = data[: table.offset] or data[: data.find(b"\n") + 1]
            rest = data[len(head) :].splitlines(keepends=True)
            step_of = _Steps(data, stamped=table.stamped)
            kept = head + b"".join(row for row in rest if step_of(row) <= step)
            if path.stat().st_size != len(kept):
                new = path.with_name(path.name + ".new")
                new.write_bytes(kept)
                new.replace(path)
            table.offset = len(kept)

    def last_step(self) -> int:
        """Return the last step in any table of the directory; 0 if the tables have no rows."""
        last = 0
        for name, table in self.find().items():
            data = self.path(name).read_bytes()[: table.offset]
            step_of = _Steps(data, stamped=table.stamped)
            last = max([last, *map(step_of, data.splitlines()[1:])])
        return last

    def unsent(self, name: str, most: int) -> tuple[list[dict[str, Any]], int]:
        """
        Return rows for DVC Studio, from about `most` bytes of the file, and the offset after them.

        Rows are whole, however long. Rows that someone else has cut off the file count as sent.
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
        found = (_row(line, column, stamped=table.stamped) for line in lines)
        rows = [row for row in found if row is not None]
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
        """Return the offset for the next rows of a file that someone else has cut or removed."""
        logger.warning(
            "%s was removed or truncated by another program: the rows lost there stay lost", path
        )
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        self.known[name].sent = min(self.known[name].sent, end)
        return end


def _header(name: str) -> bytes:
    return f"step\t{name.rpartition('/')[2]}\n".encode()


def _without_times(rows: bytes | bytearray) -> bytes:
    return b"".join(row.partition(b"\t")[2] for row in rows.splitlines(keepends=True))


class _Steps:
    """Read the steps of the rows of one table, of which `data` begins with the header."""

    def __init__(self, data: bytes, *, stamped: bool) -> None:
        self._width = len(_cells(data.partition(b"\n")[0]))
        self._column = 1 if stamped else 0

    def __call__(self, row: bytes) -> int:
        """Return a row's step; -1, which is before any step, if it is no row of the table."""
        cells = _cells(row)
        if len(cells) != self._width:
            return -1
        try:
            return int(cells[self._column])
        except (ValueError, IndexError):
            return -1


def _cells(row: bytes) -> list[bytes]:
    row = row.rstrip(b"\r\n")
    return _CELL.findall(row) if b'"' in row else row.split(b"\t")


def _row(line: str, column: str, *, stamped: bool) -> dict[str, Any] | None:
    """
    Return a row in Studio's form.

    Return None for the header, for a text, which has no plot, and for a row with a time in a table
    without times, or the other way round.
    """
    # Only a text is quoted, so numbers need no CSV reader, which would refuse a long cell.
    try:
        *stamp, step, value = line.split("\t")
        if len(stamp) != stamped:
            return None
        row: dict[str, Any] = {"timestamp": stamp[0]} if stamp else {}
        row["step"] = int(step)
        number = float(value)
    except ValueError:
        return None
    finite = number - number == 0.0
    return row | {column: number if finite else str(number)}
