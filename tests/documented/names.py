"""
The names of what transformers documents of its callbacks, computed from the installed transformers.

A name is a class, `Class.member`, `Class(field)` for a field of the training arguments that the
class's documentation names, a variable, `VARIABLE=value`, or `report_to=name`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

from transformers import Trainer, TrainingArguments, trainer_callback
from transformers.integrations import integration_utils

_FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_READ = re.compile(r"(?:getenv|environ\.get)\(\s*\"([A-Z_]+)\"")
_PARAMETER = re.compile(r"^(\*{0,2}\w+) *\(")
_ENTRY = re.compile(r"^\s*- (?:\*\*|`)([A-Z][A-Z_]+)(?:\*\*|`)(.*)")
_VALUE = re.compile(r'`"?([A-Za-z_]+)"?`|\*(1)\*')
_LITERAL = re.compile(r'"(\w+)"')
_NO_VALUES = {"None", "TrainingArguments", "Trainer", "start_run"}
"""Words that the documentation of variables marks as it marks values."""
_DEFAULT = re.compile(r"defaults? (?:to|value is) ?", re.IGNORECASE)


def names() -> set[str]:
    """Return every name of what the installed transformers documents, whatever its wording."""
    return {*_of_classes(), *_of_variables(), *_of_report_to(), *_of_the_trainer()}


def wordings() -> set[str]:
    """Return the names of statements that are found by their wording alone."""
    return {*_of_resets(), *_of_values(), *_of_arguments()}


def classes() -> dict[str, type]:
    """Return the documented classes by name, in the order of their modules."""
    found: dict[str, type] = {}
    for module in (trainer_callback, integration_utils):
        found.update({cls.__name__: cls for cls in _defined(module) if cls.__doc__})
    return found


def _defined(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield value


def _of_classes() -> Iterator[str]:
    for name, cls in classes().items():
        yield name
        documented = set(classes().values()) - {trainer_callback.TrainerCallback}
        documented -= {trainer_callback.ExportableState}
        yield from (f"{name}.is_a.{base.__name__}" for base in cls.__bases__ if base in documented)
        if issubclass(cls, Enum):
            yield from (f"{name}.{member.name}" for member in cls)
        for member in [*_parameters(cls), *_methods(cls)]:
            yield f"{name}.{member}"


def _parameters(cls: type) -> Iterator[str]:
    """Yield the parameters of a class, of its constructor and of its documentation."""
    if dataclasses.is_dataclass(cls):
        yield from (field.name for field in dataclasses.fields(cls))
    elif "__init__" in vars(cls):
        yield from list(inspect.signature(cls.__init__).parameters)[1:]  # type: ignore[misc]
    yield from _documented_parameters(inspect.getdoc(cls) or "")


def _documented_parameters(text: str) -> Iterator[str]:
    _, _, section = text.partition("Args:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            return
        found = _PARAMETER.match(line[4:])
        if found is not None:
            yield found[1].lstrip("*")


def _methods(cls: type) -> Iterator[str]:
    """Yield the public methods of a class, without the hooks that a callback overrides."""
    for name, member in vars(cls).items():
        hook = name.startswith("on_") and cls is not trainer_callback.TrainerCallback
        function = isinstance(member, classmethod | staticmethod | property)
        if (function or inspect.isfunction(member)) and not (name.startswith("_") or hook):
            yield name


def _of_the_trainer() -> Iterator[str]:
    for name, _ in inspect.getmembers(Trainer, inspect.isfunction):
        if name.endswith("_callback") and not name.startswith("_"):
            yield f"Trainer.{name}"


def _documentation(cls: type) -> Iterator[str]:
    """Yield the documentation of a class and of its public methods."""
    yield inspect.getdoc(cls) or ""
    for name in _methods(cls):
        yield inspect.getdoc(getattr(cls, name)) or ""


def _callbacks() -> Iterator[type]:
    return (cls for cls in _defined(integration_utils) if "Callback" in cls.__name__)


def _of_variables() -> Iterator[str]:
    """Yield the variables that a callback documents or reads."""
    for cls in _callbacks():
        for text in _documentation(cls):
            yield from _VARIABLE.findall(text)
        yield from _READ.findall(inspect.getsource(cls))


def _of_values() -> Iterator[str]:
    """Yield `VARIABLE=value` for each value that a variable's documentation spells out."""
    for cls in _callbacks():
        for text in _documentation(cls):
            for variable, (head, body) in _entries(text).items():
                if _DEFAULT.search(head + body):
                    yield f"{variable}.default"
                values = {value or one for value, one in _VALUE.findall(body)}
                values |= set(_LITERAL.findall(head)) if "Literal" in head else set()
                for value in values - _FIELDS - _NO_VALUES:
                    if not _VARIABLE.fullmatch(value):
                        yield f"{variable}={value}"
            for variable, value in re.findall(r"`([A-Z_]+) ?= ?([A-Z]+)`", text):
                yield f"{variable}={value}"


def _entries(text: str) -> dict[str, tuple[str, str]]:
    """Return what is said of each variable: the parentheses behind its name, and the rest."""
    found: dict[str, tuple[str, str]] = {}
    variable = None
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            variable = entry[1]
            found[variable] = (entry[2], "")
        elif variable is not None and (line.startswith(" ") or not line):
            head, body = found[variable]
            found[variable] = (head, f"{body} {line.strip()}")
        else:
            variable = None
    return found


def _of_resets() -> Iterator[str]:
    text = inspect.getdoc(trainer_callback.TrainerControl) or ""
    for flag, said in re.findall(
        r"^    (should_\w+) .*?\n(.*?)(?=^    should_|\Z)", text, re.M | re.S
    ):
        if "set back to `False`" in said:
            yield f"TrainerControl.{flag}.reset"
    text = inspect.getdoc(trainer_callback.TrainerCallback) or ""
    said_of = r"^    (\w+) +\(.*?\n(?:(?!^    \w).*\n)*?.*only accessible in the event `(\w+)`"
    for keyword, event in re.findall(said_of, text, re.M):
        yield f"TrainerCallback.{keyword}.{event}"


def _of_arguments() -> Iterator[str]:
    """Yield `Class(field)` for the training arguments that a class's documentation names."""
    for name, cls in classes().items():
        if name in ("TrainerState", "TrainerControl", "ExportableState"):
            continue
        for text in _documentation(cls):
            for token in re.findall(r"[`*]~?([\w.]+)[`*]", text):
                field = token.rpartition(".")[2]
                if field in _FIELDS:
                    yield f"{name}({field})"


def _of_report_to() -> Iterator[str]:
    given: dict[str, Any] = integration_utils.INTEGRATION_TO_CALLBACK
    yield from (f"report_to={name}" for name in [*given, "all", "none"])
