"""Every documented statement has tests: the tables are complete, and the tests are there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.documented.names import names, wordings
from tests.documented.statements import DIFFERENCES, STATEMENTS
from tests.huggingface.their_trainer import VERSION

TESTS = Path(__file__).parents[1]
TABLE = {**STATEMENTS, **DIFFERENCES}
OF_THE_TEXT = ("page: ", "report_to: ")
"""Beginnings of statements that no name in the package stands for."""


@cache
def defined(file: str) -> frozenset[str]:
    """Return the tests of a file, those of a class as `Class::test`."""
    found: set[str] = set()
    for node in ast.parse((TESTS / file).read_text()).body:
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{node.name}::{each.name}" if each is not node else each.name)
    return frozenset(found)


def test_every_named_test_is_there() -> None:
    for name, statement in TABLE.items():
        assert statement.tests, name
        for test in statement.tests:
            file, _, function = test.partition("::")
            assert function.rpartition("::")[2].startswith("test_"), name
            assert function in defined(file), f"{name} names {test}, which is not there"


def test_a_statement_either_holds_or_differs() -> None:
    assert not STATEMENTS.keys() & DIFFERENCES.keys()


def test_a_test_of_a_variable_names_the_variable() -> None:
    for name, statement in TABLE.items():
        variable = name.partition("=")[0].partition(".")[0]
        if variable.isupper() and not variable.startswith(("NEPTUNE", "KUBEFLOW", "DISABLE_KUBE")):
            files = {test.partition("::")[0] for test in statement.tests}
            texts = [(TESTS / file).read_text() for file in files]
            spelt = (variable, f'"{variable.partition("_")[2]}"')
            assert any(word in text for text in texts for word in spelt), name


@pytest.mark.skipif(VERSION < (5, 24), reason="the tables follow transformers 5.24")
def test_every_name_that_transformers_documents_is_in_a_table() -> None:
    assert not names() - TABLE.keys()


@pytest.mark.skipif(VERSION != (5, 24), reason="another version may say it in other words")
def test_the_tables_hold_what_transformers_says_and_no_more() -> None:
    assert not wordings() - TABLE.keys()
    known = {name for name in TABLE if not name.startswith(OF_THE_TEXT)}
    assert not known - names() - wordings()
