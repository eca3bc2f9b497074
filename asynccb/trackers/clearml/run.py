"""
A run as a ClearML task describes it: its fields, hyper-parameters and configuration.

Sections, names and types are those of transformers 5.23 with `clearml` 2.1. Promises: the same run
makes the same description, and it holds no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from asynccb._ground.plain import clean, flatten
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.clearml.api import Ending
from asynccb.trackers.clearml.settings import ClearMLSettings

SECTION: Final = "Transformers"
_MODEL: Final = "Model Configuration"
_MARK: Final = "_asynccb_run_"
"""Hyper-parameter that says whose a section is: the run's key, and its process."""
_OVERRIDES: Final = ("_ignore_hparams_ui_overrides_", "_ignore_model_config_ui_overrides_")
_ENDINGS: Final[dict[RunStatus, Ending]] = {
    "finished": Ending("tasks.completed", "completed"),
    "failed": Ending("tasks.failed", "the training raised an exception"),
    "killed": Ending("tasks.stopped", "the training was ended by a signal"),
    "crashed": Ending("tasks.failed", "the training process has died"),
}
_ASKED: Final = Ending("tasks.stopped", "the training has stopped, as it was asked to")


def ending_of(status: RunStatus, *, asked: bool) -> Ending:
    """Return how a task is ended whose training has ended so, or that was `asked` to stop."""
    return _ASKED if asked else _ENDINGS[status]


def mark_of(run: RunDescription) -> str:
    """Return the part of a task's comment by which it is found again."""
    return f"asynccb run {run.key}"


def fields_of(settings: ClearMLSettings, run: RunDescription, project: str) -> dict[str, Any]:
    """Return the fields of a new task."""
    begun = datetime.fromtimestamp(run.started // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    who = f"{clean(run.user)}@{clean(run.host)}"
    fields: dict[str, Any] = {
        "name": settings.task,
        "type": "training",
        "project": project,
        "system_tags": ["development"],
        "comment": f"Auto-generated at {begun} by {who} ({mark_of(run)})",
    }
    if settings.tags:
        fields["tags"] = settings.tags
    if run.script:
        fields["script"] = {"entry_point": clean(run.script), "working_dir": "."}
    return fields


def suffix_of(known: Mapping[str, Mapping[str, Any]], run: RunDescription) -> str:
    """
    Return what tells a training from the others of its process that log to the same task.

    `known` is the task's hyper-parameters by section and name. The first one gets nothing and the
    second one `_2`, as in transformers; a training that is there already gets what it had. Sections
    of other processes, which a task has that was cloned or is continued, are taken over.
    """
    marks: list[tuple[str, str]] = []
    while (section := known.get(SECTION + _suffix(len(marks)))) is not None:
        entry = section.get(_MARK)
        text = str(entry.get("value", "")) if isinstance(entry, Mapping) else ""
        key, _, process = text.partition(" ")
        marks.append((key, process))
    for number, (key, _) in enumerate(marks):
        if key == run.key:
            return _suffix(number)
    for number, (_, process) in enumerate(marks):
        if process != _process_of(run):
            return _suffix(number)
    return _suffix(len(marks))


def _suffix(number: int) -> str:
    return f"_{number + 1}" if number else ""


def _process_of(run: RunDescription) -> str:
    return f"{run.pid}@{clean(run.host)}"


def hyperparams_of(run: RunDescription, suffix: str) -> list[dict[str, str]]:
    """Return the training arguments, flat, with tokens left out."""
    section = SECTION + suffix
    args = {k: v for k, v in run.args.to_dict().items() if not k.endswith("_token")}
    values: dict[str, Any] = flatten(clean(args), "/")
    values |= {_MARK: f"{run.key} {_process_of(run)}", **dict.fromkeys(_OVERRIDES, True)}
    return [_parameter(section, name, value) for name, value in values.items()]


def configuration_of(run: RunDescription, suffix: str) -> list[dict[str, str]]:
    """Return the model's configuration; JSON is what HOCON, which the vendor writes, includes."""
    if run.model is None or run.model.config is None:
        return []
    number = suffix.removeprefix("_") or "1"
    return [
        {
            "name": _MODEL + suffix,
            "type": "dictionary",
            "description": f"The configuration of model number {number}.",
            "value": json.dumps(clean(run.model.config), indent=2, ensure_ascii=False),
        }
    ]


def _parameter(section: str, name: str, value: Any) -> dict[str, str]:
    entry = {"section": section, "name": name, "value": _text(value), "description": ""}
    kind = _kind(value)
    if name in _OVERRIDES:
        entry["description"] = "What is changed on the server's pages is not applied to a training."
    return entry if kind is None else {**entry, "type": kind}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    kind = type(value).__name__
    if isinstance(value, list) and value and len({type(item) for item in value}) == 1:
        return f"{kind}/{type(value[0]).__name__}"
    return kind
