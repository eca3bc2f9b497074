"""Reading what a DVCLive tracker has written, by Python's own CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from tests.trackers.dvclive.studio import Experiment


def tables(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return the rows of each metric, by its name, as step and value."""
    found: dict[str, list[tuple[int, Any]]] = {}
    folder = directory / "plots" / "metrics"
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).as_posix().removesuffix(".tsv")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        columns = ["step", name.rpartition("/")[2]]
        assert all(list(row) in (columns, ["timestamp", *columns]) for row in rows), name
        found[name] = [(int(row["step"]), number(row[name.rpartition("/")[2]])) for row in rows]
    return found


def number(text: str) -> Any:
    """Return a cell's number, or the text that it is."""
    try:
        return float(text)
    except ValueError:
        return text


def latest(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "metrics.json").read_text())
    return found


def studio_rows(experiment: Experiment, directory: str) -> dict[str, list[tuple[int, Any]]]:
    """Return what Studio has of each metric, as `tables` does."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for file, rows in experiment.plots.items():
        name = file.removeprefix(f"{directory}/plots/metrics/").removesuffix(".tsv")
        column = name.rpartition("/")[2]
        found[name] = [(row["step"], float(row[column])) for row in rows]
    return found


def numeric(rows: dict[str, list[tuple[int, Any]]]) -> dict[str, list[tuple[int, str]]]:
    """Return the rows that Studio can have, equal ones once, so that NaN can be compared too."""
    kept = {
        name: list(
            dict.fromkeys((step, repr(value)) for step, value in points if isinstance(value, float))
        )
        for name, points in rows.items()
    }
    return {name: points for name, points in kept.items() if points}


def plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
