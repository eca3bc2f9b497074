"""The architecture: who may import whom, and how long a file may be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from launching import environment

import asynccb

ROOT = Path(asynccb.__file__).parent

LAYERS: list[set[str]] = [
    {"_exceptions", "_events", "_late_history", "_slots"},
    {
        "_intervals",
        "_state",
        "_state_file",
        "_control",
        "_decides",
        "_requesting",
        "_callback",
        "arguments",
        "_argument_checks",
        "_argument_setters",
        "_record",
        "_run",
    },
    {
        "_schedule",
        "_tickets",
        "_waiting",
        "_staged_logs",
        "_form_table",
        "_ring",
        "_mailbox",
        "_stall",
        "_cancellation",
        "_lane_counts",
        "_lane",
        "_thread_lane",
        "_loop",
        "delivery.rejected",
        "delivery.retry",
        "trackers._environment",
        "trackers.payload",
    },
    {
        "_agreement",
        "_companion",
        "_describe",
        "_device_forms",
        "_device_staging",
        "_faults",
        "_given",
        "_inline",
        "_lane_making",
        "_lifetime",
        "_meeting",
        "_noticeboard",
        "_offers",
        "_outlet",
        "_pinned",
        "_request_rounds",
        "_requests",
        "_roster",
        "_publisher",
        "_statistics",
        "_closing",
        "_decision_state",
        "_decision_log",
        "_decisions",
        "_dispatcher",
        "_listening",
        "_membership",
        "_record_writer",
        "_save_notes",
        "_steering",
        "_stepping",
        "_tracker_runs",
        "_histograms",
        "_model_files",
        "_trace",
        "_training_sides",
        "delivery",
        "staging",
        "distributed",
    },
    {"callbacks", "trackers"},
    {
        "trainer",
        "checkpoint",
        "huggingface",
        "_foreign",
        "_offload",
        "_relay",
        "testing",
        "_trainer",
        "_reporting",
    },
    {"_cli", "__init__"},
]
"""Modules, or whole folders, lowest layer first."""


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if name == "__init__" else name.removesuffix(".__init__")


SOURCES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def layer_of(module: str) -> int:
    """Return the layer that names the module, or else the folder that it is in."""
    for name in (module, module.partition(".")[0]):
        for number, layer in enumerate(LAYERS):
            if name in layer:
                return number
    raise AssertionError(f"asynccb.{module} is in no layer: give it one in LAYERS")


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Return what the statements import, as full names."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def ours(names: set[str]) -> set[str]:
    """Return the modules of asynccb among full names, of modules or of things in them."""
    found: set[str] = set()
    for name in names:
        first, _, rest = name.partition(".")
        if first == "asynccb":
            module = rest if rest in SOURCES else rest.rpartition(".")[0]
            assert module in SOURCES, name
            found.add(module)
    return found


def everywhere(module: str) -> set[str]:
    """Return all that a module imports: at its top, for type checkers, and in functions."""
    return imported(ast.walk(ast.parse(SOURCES[module].read_text())))


def at_import(module: str) -> set[str]:
    """Return what a module imports when it is imported itself."""

    def reached(body: list[ast.stmt]) -> Iterator[ast.AST]:
        for node in body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            yield node
            for part in ("body", "orelse", "finalbody"):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from reached(getattr(node, part, []))

    return imported(reached(ast.parse(SOURCES[module].read_text()).body))


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_from_its_own_layer_and_lower_ones(module: str) -> None:
    above = {name for name in ours(everywhere(module)) if layer_of(name) > layer_of(module)}
    assert not above


def test_every_layer_names_only_modules_that_are_there_or_still_to_come() -> None:
    to_come = {"_schedule", "testing", "_cli"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert set().union(*LAYERS) <= set(SOURCES) | folders | to_come


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: ours(at_import(module)) for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith(("callbacks", "trackers"))])
def test_callbacks_and_trackers_know_nothing_of_the_dispatcher_or_torch(module: str) -> None:
    names = everywhere(module)
    assert not {name for name in names if name.partition(".")[0] in ("torch", "transformers")}
    assert not ours(names) & {"_dispatcher", "_publisher", "_outlet", "_companion._parent"}


def test_nothing_that_the_companion_may_load_loads_torch() -> None:
    folders = ("callbacks", "trackers", "delivery", "_companion")
    modules = [m for m in SOURCES if m.startswith(folders) and not m.endswith("__main__")]
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module('asynccb.' + name)\n"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(modules)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", SOURCES)
def test_a_file_is_short_enough_to_be_read_at_once(module: str) -> None:
    lines = SOURCES[module].read_text().count("\n")
    assert lines <= 350


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[module].read_text()))


@pytest.mark.parametrize("module", SOURCES)
def test_names_say_what_things_are(module: str) -> None:
    vague = ("manager", "handler", "helper", "utils", "engine", "processor", "context")
    tree = ast.parse(SOURCES[module].read_text())
    defined = {module.rpartition(".")[2]}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
    assert not {name for name in defined if any(word in name.lower() for word in vague)}
