"""
Describe a run as a ClearML task: its fields, hyper-parameters and configuration.

Sections, names and types are the same as in transformers 5.23 with `clearml` 2.1. Promises: the
same run makes the same description, and the description contains no secret.
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
"""Hyper-parameter that identifies the owner of a section: the run's key, and its process."""
_OVERRIDES: Final = ("_ignore_hparams_ui_overrides_", "_ignore_model_config_ui_overrides_")
_ENDINGS: Final[dict[RunStatus, Ending]] = {
    "finished": Ending("tasks.completed", "completed"),
    "failed": Ending("tasks.failed", "the training raised an exception"),
    "killed": Ending("tasks.stopped", "the training was ended by a signal"),
    "crashed": Ending("tasks.failed", "the training process has died"),
}
_ASKED: Final = Ending("tasks.stopped", "the training has stopped, as it was asked to")


def ending_of(status: RunStatus, *, asked: bool) -> Ending:
    """Return the task's ending for a training's status, or for a training `asked` to stop."""
    return _ASKED if asked else _ENDINGS[status]


def mark_of(run: RunDescription) -> str:
    """Return the part of a task's comment that identifies the run's task."""
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
    Return the suffix that distinguishes trainings of one process that log to the same task.

    `known` are the task's hyper-parameters by section and name. The first training's suffix is
    empty and the second's is `_2`, as in transformers; a training with a section keeps its suffix.
    A cloned or continued task has sections of other processes, which are reused.
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
    """Return the model's configuration, in JSON, a subset of the HOCON that the vendor writes."""
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
        entry["description"] = "Changes made on the server's pages are not applied to a training."
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
