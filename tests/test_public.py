"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import typing
from importlib import import_module

import pytest

import asynccb
from tests.support.launching import environment

HEAVY = {"torch", "transformers", "httpx", "numpy", "tensorboard", "mlflow", "tqdm", "anyio"}


def loaded_by(*statements: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after the statements."""
    lines = ["import json, sys", *statements, "print(json.dumps(list(sys.modules)))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_importing_asynccb_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import asynccb"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(re.findall(r"\|\s+(\w+)[\w.]*$", done.stderr, re.MULTILINE))
    assert "asynccb" in loaded
    assert not HEAVY & loaded


def test_importing_asynccb_starts_no_thread_and_opens_nothing() -> None:
    program = (
        "import os, threading; before = sorted(os.listdir('/proc/self/fd'));"
        "import asynccb; from asynccb import *;"
        "assert threading.active_count() == 1, threading.enumerate();"
        "assert sorted(os.listdir('/proc/self/fd')) == before"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), timeout=60, check=True)


@pytest.mark.parametrize(
    "name", ["TrainerCallback", "Event", "TrainerState", "TrainerControl", "DeliveryError"]
)
def test_a_simple_name_loads_nothing_heavy_either(name: str) -> None:
    assert not HEAVY & loaded_by(f"import asynccb; asynccb.{name}")


@pytest.mark.parametrize(
    "name", ["TensorBoardCallback", "MLflowCallback", "ProgressCallback", "EarlyStoppingCallback"]
)
def test_a_callback_in_the_training_process_leaves_its_library_to_its_user(name: str) -> None:
    loaded = loaded_by(f"import asynccb; asynccb.{name}")
    assert not {"torch", "transformers", "httpx", "tensorboard", "mlflow", "tqdm"} & loaded


def test_the_names_are_sorted_and_said_once() -> None:
    assert asynccb.__all__ == sorted(set(asynccb.__all__))


@pytest.mark.parametrize("name", asynccb.__all__)
def test_every_name_is_found_in_the_module_that_defines_it(name: str) -> None:
    value = getattr(asynccb, name)
    home = import_module(f"asynccb.{asynccb._HOMES[name]}")
    assert value is getattr(home, name)
    assert value.__module__ == home.__name__


def test_the_homes_are_those_of_the_public_names() -> None:
    assert sorted(asynccb._HOMES) == asynccb.__all__
    assert dir(asynccb) == asynccb.__all__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(asynccb))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: node.module for node in imports for alias in node.names}
    assert names == {name: f"asynccb.{home}" for name, home in asynccb._HOMES.items()}


def test_every_error_is_public_and_an_asynccb_error() -> None:
    errors = import_module("asynccb._ground.exceptions")
    kinds = {n for n, value in vars(errors).items() if inspect.isclass(value)}
    assert kinds <= set(asynccb.__all__)
    for name in kinds:
        assert issubclass(getattr(asynccb, name), asynccb.AsyncCCBError)
        assert name in (errors.__doc__ or "")


def test_every_public_name_is_documented() -> None:
    for name in asynccb.__all__:
        assert (getattr(asynccb, name).__doc__ or "").strip(), name


def test_a_name_that_is_none_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'asynccb' has no attribute 'Callback'"):
        asynccb.Callback  # type: ignore[attr-defined]  # noqa: B018


def test_the_type_information_is_shipped() -> None:
    root = asynccb.__file__.rpartition("/")[0]
    with open(f"{root}/py.typed"):
        pass


def test_the_dispatchers_arguments_are_those_of_the_documentation() -> None:
    parameters = list(inspect.signature(asynccb.CallbackDispatcher).parameters)
    assert parameters == [
        "callbacks",
        "args",
        "state",
        "max_steps",
        "model",
        "optimizer",
        "lr_scheduler",
        "processing_class",
        "train_dataloader",
        "eval_dataloader",
        "directory",
        "capacity",
        "overflow",
        "replay",
    ]


def test_the_annotations_of_the_public_functions_can_be_resolved() -> None:
    for name in ("emit", "step", "log", "flush", "close", "statistics", "add_callback"):
        typing.get_type_hints(getattr(asynccb.CallbackDispatcher, name))
