"""
Create a ClearML task, or find the task to continue.

Promises: opening twice creates one task. A task that somebody has stopped is not restarted by the
training that it was started for.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb._state.run_description import RunDescription
from asynccb.trackers.clearml.api import ClearMLServer, TaskInfo
from asynccb.trackers.clearml.files import Owner
from asynccb.trackers.clearml.run import (
    configuration_of,
    fields_of,
    hyperparams_of,
    mark_of,
    suffix_of,
)
from asynccb.trackers.clearml.settings import ClearMLSettings
from asynccb.trackers.shared.answers import Reject

_NOT_BEGUN: Final = ("created", "queued")


class Known(NamedTuple):
    """The task as an earlier process has stored it."""

    task: str
    suffix: str
    training: str
    """The training that the task was started for."""


async def open_task(
    server: ClearMLServer, settings: ClearMLSettings, run: RunDescription, known: Known | None
) -> Owner:
    """
    Return the task, after starting it if necessary.

    Raises `AccessError` if the task is gone, or published and therefore read-only.
    """
    task, suffix = await _find(server, settings, run, known)
    continues = known is not None and known.training == run.training
    starts = task.status in _NOT_BEGUN or task.is_abandoned or not continues
    if starts and not task.is_begun and not settings.external:
        await server.start_task(task.id)
    ours = settings.task_id is None
    project = task.project or ""
    folder = settings.project if ours else project
    return Owner(task.id, task.name or settings.task, project, folder, suffix)


def check_open(task: TaskInfo | None, task_id: str) -> TaskInfo:
    """Return a task; raise `AccessError` if it is gone or published."""
    if task is None:
        raise AccessError(
            f"no ClearML task {task_id} was found: it was removed, or you lack access"
        )
    if task.status in ("published", "publishing"):
        raise AccessError(f"the ClearML task {task_id} is published and accepts no more data")
    return task


async def describe_task(
    server: ClearMLServer, owner: Owner, run: RunDescription, reject: Reject
) -> None:
    """Send hyper-parameters and configuration; call `reject` for a part that the server refuses."""
    parameters = hyperparams_of(run, owner.suffix)
    configuration = configuration_of(run, owner.suffix)
    hyperparams = {"hyperparams": parameters, "replace_hyperparams": "section"}
    parts: list[tuple[str, dict[str, Any]]] = [("edit_hyper_params", hyperparams)]
    if configuration:
        parts.append(("edit_configuration", {"configuration": configuration}))
    for action, body in parts:
        try:
            await server.call(f"tasks.{action}", {"task": owner.task, "force": True, **body})
        except RejectedError as error:
            reject(f"the task's {next(iter(body))}", str(error), cause=action)


async def _find(
    server: ClearMLServer, settings: ClearMLSettings, run: RunDescription, known: Known | None
) -> tuple[TaskInfo, str]:
    if known is not None:
        return await _existing(server, known.task), known.suffix
    if settings.task_id is not None:
        task = await _existing(server, settings.task_id)
        # A given task is continued; an external task may contain several trainings.
        return task, suffix_of(task.hyperparams or {}, run) if settings.external else ""
    project = await server.project(settings.project)
    found = await server.find_task(project, settings.task, mark_of(run))
    if found is None:
        made = await server.create_task(fields_of(settings, run, project))
        found = TaskInfo(made, settings.task, project, "created")
    return check_open(found, found.id), ""


async def _existing(server: ClearMLServer, task_id: str) -> TaskInfo:
    return check_open(await server.task(task_id, hyperparams=True), task_id)
