"""The same run in our Trainer and in that of transformers, over a matrix of settings and hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.huggingface.differences import DIFFERENCES, ELSEWHERE, deliberate
from tests.huggingface.differential import Case, Record, cases, run_ours, run_theirs
from tests.huggingface.their_trainer import VERSION

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(VERSION < (5, 23), reason="our Trainer follows transformers 5.23 and later"),
]

CASES = list(cases())


def exactly(value: Any) -> Any:
    return value


def nearly(value: Any) -> Any:
    return pytest.approx(value, rel=1e-5) if isinstance(value, float) else value


def aspects(record: Record, number: Callable[[Any], Any]) -> dict[str, Any]:
    """What is compared, by name, with what `number` makes of each value."""

    def numbers(figures: dict[str, Any]) -> dict[str, Any]:
        return {n: number(value) for n, value in figures.items() if n != "train_loss"}

    return {
        "events": record.seen,
        "given": [numbers(figures) for figures in record.given],
        "logged": [list(numbers(entry).items()) for entry in record.history],
        "train_loss": [
            number(entry["train_loss"])
            for entry in (*record.history, record.output)
            if "train_loss" in entry
        ],
        "weights": numbers(record.weights),
        "state": numbers(record.state),
        "stored": {name: numbers(state) for name, state in record.stored.items()},
        "output": numbers(record.output),
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_events_flags_and_values_are_equal_but_where_they_differ_on_purpose(
    case: Case, tmp_path: Path
) -> None:
    theirs = aspects(run_theirs(case, tmp_path / "theirs"), nearly)
    ours = aspects(run_ours(case, tmp_path / "ours"), exactly)
    purpose = deliberate(case.name)
    for aspect, values in ours.items():
        if aspect in purpose:
            assert values != theirs[aspect], f"{aspect} is listed as different, and is not"
        else:
            assert values == theirs[aspect], aspect


def test_every_deliberate_difference_is_shown_by_a_case() -> None:
    for difference in DIFFERENCES:
        for pattern in difference.cases:
            alone = difference.__class__((pattern,), difference.aspects, difference.reason)
            assert any(alone.names(case.name) for case in CASES), pattern


def test_every_other_difference_names_tests_that_are_there() -> None:
    root = Path(__file__).parents[2]
    for files in ELSEWHERE.values():
        assert all((root / name).is_file() for name in files.split(", "))
