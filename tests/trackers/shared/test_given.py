"""Settings of a tracker: arguments before variables, and what is refused with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from asynccb import ConfigurationError
from asynccb.trackers.shared.given import Given

ENVIRON = {"TEXT": " there ", "EMPTY": " ", "SECONDS": "2.5", "ODD": "soon"}
WORDS = {"on": 1, "off": 0}


def text(given: Given) -> Any:
    return given.text("it", "TEXT")


def choice(given: Given) -> Any:
    return given.choice("it", "ODD", WORDS, 2, "on or off")


def seconds(given: Given) -> Any:
    return given.seconds("it", "SECONDS", usual=9.0, least=1)


@pytest.mark.parametrize(
    ("read", "argument", "expected"),
    [
        (text, None, "there"),
        (text, "given", "given"),
        (lambda given: given.text("it", "EMPTY"), None, None),
        (lambda given: given.text("it"), None, None),
        (lambda given: given.switch("it"), None, False),
        (lambda given: given.switch("it"), True, True),
        (choice, "on", 1),
        (lambda given: given.choice("it", "EMPTY", WORDS, 2, "on or off"), None, 2),
        (seconds, None, 2.5),
        (seconds, 4, 4.0),
        (seconds, False, 0.0),
        (lambda given: given.seconds("it", usual=9.0, least=1), None, 9.0),
    ],
)
def test_an_argument_comes_before_its_variable(
    read: Callable[[Given], Any], argument: Any, expected: Any
) -> None:
    assert read(Given({"it": argument, "other": 0}, ENVIRON)) == expected


@pytest.mark.parametrize(
    ("read", "argument", "message"),
    [
        (text, "", "it is ''; it takes a string that is not empty"),
        (choice, None, "it (or ODD) is 'soon'; it takes on or off"),
        (choice, ["on"], "it (or ODD) is ['on']; it takes on or off"),
        (seconds, True, "it (or SECONDS) is True; it takes seconds, at least 1, or False"),
        (seconds, 1e6, "it (or SECONDS) is 1000000.0; it takes seconds, at least 1, or False"),
        (
            lambda given: given.seconds("it", "ODD", usual=9.0, least=1),
            None,
            "it (or ODD) is 'soon'; it takes seconds, at least 1, or False",
        ),
        (
            lambda given: given.seconds("it", usual=9.0, least=1),
            0.5,
            "it is 0.5; it takes seconds, at least 1, or False",
        ),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_names(
    read: Callable[[Given], Any], argument: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        read(Given({"it": argument}, ENVIRON))


def test_tags_come_once_and_those_of_a_variable_without_the_empty_ones() -> None:
    assert Given({"tags": None}, {}).tags("It", listed=["a", " ", " a", "b"], strip=True) == [
        "a",
        "b",
    ]
    assert Given({"tags": ("b", " a", "b")}, {}).tags("It", listed=["c"]) == ["b", " a"]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("a", "tags are 'a'; they take a list of strings"),
        (3, "tags are 3; they take a list of strings"),
        (["abcd"], "a It tag is 'abcd'; it takes 1 to 3 characters"),
        ([" "], "a It tag is ''; it takes 1 to 3 characters"),
        ([[]], "a It tag is []; it takes 1 to 3 characters"),
        (["a", "a", "a"], "there are 3 tags; It takes 2"),
    ],
)
def test_tags_that_cannot_be_are_refused(tags: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        Given({"tags": tags}, {}).tags("It", 3, 2, strip=True)


def test_a_tracker_without_a_limit_takes_any_tag_that_is_a_string() -> None:
    assert Given({"tags": ["x" * 999]}, {}).tags("It") == ["x" * 999]
    with pytest.raises(ConfigurationError, match=r"^a It tag is ''; it takes a string$"):
        Given({"tags": [""]}, {}).tags("It")
