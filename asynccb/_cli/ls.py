"""`asynccb ls`: prints the runs in a folder as a table."""

from __future__ import annotations

from pathlib import Path

from asynccb._journal.overview import Overview, Standing, look_at_all
from asynccb._journal.sync_command import sync_command

_HEAD = ("RUN", "STATUS", "SIZE", "TRACKER", "TO DELIVER")


def ls(directory: Path, runs: list[Path]) -> int:
    """
    Print a line for each run and tracker.

    Returns 2 if a run cannot be read, else 1 if records wait to be delivered, else 0.
    """
    overviews = look_at_all(runs)
    rows = [row for overview in overviews for row in _rows(directory, overview)]
    widths = [max(len(row[column]) for row in [_HEAD, *rows]) for column in range(len(_HEAD))]
    for row in [_HEAD, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    waiting = [overview for overview in overviews if overview.is_waiting]
    if waiting:
        share = f"{len(waiting)} of {len(overviews)}"
        print(f"{share} have something to deliver: {sync_command(directory)}")
    if any(overview.hindrance for overview in overviews):
        return 2
    return 1 if waiting else 0


def size_text(size: int) -> str:
    """Return a number of bytes in KiB or MiB, as text."""
    if size < 1 << 20:
        return f"{size / (1 << 10):.0f} KiB"
    return f"{size / (1 << 20):,.1f} MiB"


def _rows(directory: Path, overview: Overview) -> list[tuple[str, ...]]:
    path = overview.path
    name = path.name if path == directory else str(path.relative_to(directory))
    status = f"{overview.ended}, waiting" if overview.is_waiting else overview.ended
    lanes = [(lane.name, _left(lane)) for lane in overview.lanes]
    lanes = lanes or [("-", overview.hindrance or "nothing")]
    first, *others = lanes
    rows: list[tuple[str, ...]] = [(name, status, size_text(overview.size), *first)]
    return rows + [("", "", "", *lane) for lane in others]


def _left(lane: Standing) -> str:
    lost = f", {lane.lost:,} lost" if lane.lost else ""
    return f"{lane.behind:,}{lost}"
