"""
The architecture: which room may import which, and how long a file may be.

Each room's `__init__` says in the last line of its docstring what the room may import. That line
is the only table; the tests here hold the code to it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import asynccb
from tests.support.launching import environment

ROOT = Path(asynccb.__file__).parent
LONGEST_FILE = 350
"""Lines."""
FULLEST_FOLDER = 22
"""Files."""
MOST_ENTRIES = 25
"""Folders and files in `asynccb/`."""


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if name == "__init__" else name.removesuffix(".__init__")


SOURCES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
TRACKERS = sorted(path.parent.name for path in ROOT.glob("trackers/*/callback.py"))


def room_of(module: str) -> str:
    return module.partition(".")[0]


def allowed(room: str) -> list[str]:
    """Return what the last line of a folder's docstring lets it import, of rooms or of files."""
    docstring = ast.get_docstring(ast.parse(SOURCES[room].read_text())) or ""
    found = re.search(r"May import: ([^:]+)\.\Z", docstring)
    assert found, f"asynccb.{room}: its docstring does not end with 'May import: ….'"
    said = " ".join(found[1].split())
    return [] if said.startswith("nothing") else said.split(", ")


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


def arrows() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in SOURCES:
        if room_of(module) in ROOMS:
            found[room_of(module)] |= {room_of(name) for name in ours(everywhere(module))}
    return {room: others - {room} for room, others in found.items()}


def is_allowed(module: str, permitted: list[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in permitted)


@pytest.mark.parametrize("module", [name for name in SOURCES if room_of(name) in ROOMS])
def test_a_file_imports_only_what_its_room_may_import(module: str) -> None:
    permitted = [*allowed(room_of(module)), room_of(module)]
    others = ours(everywhere(module))
    assert sorted(name for name in others if not is_allowed(name, permitted)) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_may_import_no_room_that_none_of_its_files_imports(room: str) -> None:
    imports = {
        name for module in SOURCES if room_of(module) == room for name in ours(everywhere(module))
    }
    unused = [name for name in allowed(room) if not any(is_allowed(one, [name]) for one in imports)]
    assert unused == []


def test_the_rooms_form_no_circle_and_few_floors() -> None:
    sorter = TopologicalSorter(arrows())
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(f"a circle of rooms: {' -> '.join(error.args[1])}")
    floors = 0
    while sorter.is_active():
        sorter.done(*sorter.get_ready())
        floors += 1
    assert floors <= 13


def test_few_arrows_lead_from_one_room_to_another() -> None:
    assert sum(len(others) for others in arrows().values()) <= 140


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {
        module: ours(everywhere(module)) - {module}
        for module in SOURCES
        if room_of(module) in ROOMS
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_rooms_above_know_a_tracker(module: str) -> None:
    names = ours(everywhere(module))
    if room_of(module) not in ("trackers", "trainer", "huggingface", "testing", "__init__"):
        assert not {name for name in names if room_of(name) == "trackers"}


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("trackers.")])
def test_a_tracker_knows_no_other_tracker_than_its_folder_says(module: str) -> None:
    folder = module.split(".")[1]
    if f"trackers.{folder}.callback" not in SOURCES and folder != "shared":
        return  # the contract and the names, which all may import
    permitted = [f"trackers.{name}" for name in [*allowed(f"trackers.{folder}"), folder]]
    others = {name for name in ours(everywhere(module)) if room_of(name) == "trackers"}
    assert sorted(name for name in others if not is_allowed(name, permitted)) == []


@pytest.mark.parametrize("module", SOURCES)
def test_the_training_process_shares_only_the_messages_with_the_companion(module: str) -> None:
    shared = {"_publishing": {"_companion.messages"}, "_cli": {"_companion.sync"}}
    names = {name for name in ours(everywhere(module)) if room_of(name) == "_companion"}
    if room_of(module) != "_companion":
        assert names <= shared.get(room_of(module), set())


@pytest.mark.parametrize("module", SOURCES)
def test_httpx_and_torch_are_imported_in_few_rooms(module: str) -> None:
    names = {name.partition(".")[0] for name in everywhere(module)}
    rooms = {
        "httpx": ("delivery",),
        "torch": ("_staging", "distributed", "checkpoint", "trainer", "testing"),
        "transformers": ("trainer", "huggingface"),
    }
    for package, homes in rooms.items():
        assert package not in names or room_of(module) in homes, package


def test_nothing_that_the_companion_may_load_loads_torch() -> None:
    rooms = ("callbacks", "trackers", "delivery", "_companion", "_journal", "_lanes")
    modules = [m for m in SOURCES if room_of(m) in rooms and not m.endswith("__main__")]
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
    assert SOURCES[module].read_text().count("\n") <= LONGEST_FILE


def test_a_folder_is_small_enough_to_be_overlooked() -> None:
    folders = {path.parent for path in SOURCES.values()} - {ROOT}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > FULLEST_FOLDER} == {}
    entries = [path.name for path in ROOT.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES


@pytest.mark.parametrize("module", SOURCES)
def test_a_name_has_an_underscore_at_the_door_and_none_inside(module: str) -> None:
    inner = [part for part in module.split(".")[1:] if part.startswith("_")]
    assert set(inner) <= {"__main__", "__init__"}


VOCABULARY = {
    *("__init__", "callback", "settings", "access", "config_files", "api", "values", "run"),
    *("opening", "outbox", "files", "training"),
}
"""Names of files that mean the same in each tracker's folder."""
OWN = {
    "clearml": {"conf_file"},
    "codecarbon": {"session", "table"},
    "comet_ml": {"archive"},
    "dvclive": {"dvc_process", "folder", "repository", "tables", "yaml_files"},
    "flyte": {"deck", "slots", "task"},
    "mlflow": {"address", "appended", "store", "tracker"},
    "swanlab": {"run_file", "run_file_format"},
    "tensorboard": {"event_file", "tags"},
    "trackio": {"inbox", "space"},
    "wandb": {"models", "stream"},
}
"""Names of files that only one tracker needs."""


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_trackers_files_are_named_like_those_of_the_others(tracker: str) -> None:
    names = {path.stem for path in (ROOT / "trackers" / tracker).glob("*.py")}
    assert names <= VOCABULARY | OWN.get(tracker, set())


ONLY_SUBCLASSES = {
    # One class in three files, read bottom up: evaluation works without training.
    *("ResumableTrainer", "Trainer"),
    # One class in two files: fields and checks here, what sets several fields at once there.
    "TrainingArguments",
    # Errors and data that callers tell apart by their kind.
    *("BusyError", "FaultError", "LateDecisionError", "UndecidedError", "UnusableStoreError"),
    "Description",
    # A hook's `state` is a `TrainerState`, and that of an offloaded hook a snapshot.
    *("StateSnapshot", "_OwnState"),
    # W&B needs more of the training process than the console that others need alone.
    "WandbTraining",
    # Slots whose memory is gone, for readers of an old ring.
    "_NoSlots",
    # Rooms below the trackers tell them from other callbacks by their base class.
    "Tracker",
}
"""Classes that are alone in having their base, each for a reason."""


def test_a_base_class_has_several_subclasses_or_a_reason() -> None:
    trees = {module: ast.parse(path.read_text()) for module, path in SOURCES.items()}
    classes = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    names = {node.name for node in classes}
    subclasses: dict[str, set[str]] = {}
    for node in classes:
        for base in (ast.unparse(base).rpartition(".")[2] for base in node.bases):
            if base in names:
                subclasses.setdefault(base, set()).add(node.name)
    alone = {name for found in subclasses.values() if len(found) == 1 for name in found}
    assert alone == ONLY_SUBCLASSES


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


MAP = (ROOT / "README.md").read_text()


def test_each_file_that_the_map_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", MAP))
    assert len(named) > 25
    assert [
        name for name in named if not (ROOT / name).is_file() and not name.startswith("tests/")
    ] == []
    assert [
        name for name in named if name.startswith("tests/") and not (ROOT.parent / name).is_file()
    ] == []


def test_the_map_names_each_room_once_from_the_top_down() -> None:
    named = re.findall(r"^\| `(\w+)/` \|", MAP, re.MULTILINE)
    assert sorted(named) == ROOMS
    below = arrows()
    for place, room in enumerate(named):
        assert not below[room] & set(named[:place]), room


@pytest.mark.parametrize("module", SOURCES)
def test_each_file_that_a_docstring_or_comment_names_is_there(module: str) -> None:
    path = SOURCES[module]
    for name in re.findall(r"`([\w/]+\.py)`", path.read_text()):
        places = (path.parent / name, ROOT / name, ROOT.parent / name)
        assert any(place.is_file() for place in places), f"{module} names {name}"


@pytest.mark.parametrize("page", ["README.md", "asynccb/README.md", "asynccb/delivery/README.md"])
def test_each_file_that_a_page_links_to_is_there(page: str) -> None:
    path = ROOT.parent / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
