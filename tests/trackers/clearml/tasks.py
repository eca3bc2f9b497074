"""What a ClearML server keeps: projects, tasks with their events, and models."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

_FROM: Final = {
    "started": {"created", "queued", "stopped", "in_progress"},
    "completed": {"in_progress", "stopped", "completed"},
    "failed": {"in_progress", "stopped", "failed"},
    "stopped": {"in_progress", "stopped"},
}
_NEVER: Final = {"completed": {"created"}, "failed": {"created"}, "stopped": {"created"}}
_STATUS: Final = {
    "started": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
}
SINGLE: Final = -(2**31)


class Refused(Exception):  # noqa: N818 - it is an answer
    """Signal what is answered with another status than 200."""

    def __init__(self, status: int, subcode: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.subcode = subcode


@dataclass
class Task:
    """Hold one task."""

    fields: dict[str, Any]
    scalars: dict[tuple[str, str, int], float] = field(default_factory=dict)
    times: dict[tuple[str, str, int], int] = field(default_factory=dict)
    logs: list[dict[str, Any]] = field(default_factory=list)
    pings: int = 0
    resent: int = 0
    """Scalars that came when they were there already."""
    transitions: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def status(self) -> str:
        return str(self.fields["status"])

    def series(self, title: str, name: str) -> list[tuple[int, float]]:
        """Return a series, in order of its iterations."""
        found = [(k[2], v) for k, v in self.scalars.items() if k[:2] == (title, name)]
        return sorted(found)

    def parameters(self, section: str) -> dict[str, str]:
        """Return the hyper-parameters of a section, as texts."""
        entries = self.fields["hyperparams"].get(section, {})
        return {name: entry["value"] for name, entry in entries.items()}


class Tasks:
    """Act on what is kept, as the server does, once a request is known to be well formed."""

    def __init__(self) -> None:
        self.projects: dict[str, str] = {}
        """Names by id."""
        self.tasks: dict[str, Task] = {}
        self.models: dict[str, dict[str, Any]] = {}

    def only(self) -> Task:
        """Return the only task."""
        (task,) = self.tasks.values()
        return task

    def act(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        service, _, name = action.partition(".")
        if service == "tasks" and name in _STATUS:
            return self._change(name, body)
        method = getattr(self, f"_{service}_{name}", None)
        if method is None:
            raise Refused(404, 0, f"Unable to find endpoint for name {action}")
        answer: dict[str, Any] = method(body)
        return answer

    def add_event(self, event: dict[str, Any]) -> None:
        task = self.tasks[event["task"]]
        if task.status == "published":
            raise Refused(400, 131, "Events not added (task is published)")
        if event["type"] == "log":
            task.logs.append(event)
            return
        place = (event["metric"], event["variant"], event["iter"])
        task.resent += task.scalars.get(place) == event["value"]
        task.scalars[place] = event["value"]
        task.times[place] = event["timestamp"]

    def _events_scalar_metrics_iter_histogram(self, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (title, name, step), value in sorted(self._task(body).scalars.items()):
            if step != SINGLE:
                empty: dict[str, Any] = {"name": name, "x": [], "y": []}
                series = found.setdefault(title, {}).setdefault(name, empty)
                series["x"].append(step)
                series["y"].append(value)
        return found

    def _events_get_task_single_value_metrics(self, body: dict[str, Any]) -> dict[str, Any]:
        tasks = []
        for name in body["tasks"]:
            scalars = self._task({"task": name}).scalars.items()
            values = [
                {"metric": title, "variant": variant, "value": value, "timestamp": 0}
                for (title, variant, step), value in scalars
                if step == SINGLE
            ]
            tasks.append({"task": name, "values": values})
        return {"tasks": tasks}

    # -- projects ----------------------------------------------------------------------------------

    def _projects_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        pattern = re.compile(body["name"])
        found = [{"id": k, "name": v} for k, v in self.projects.items() if pattern.search(v)]
        return {"projects": found}

    def _projects_get_by_id(self, body: dict[str, Any]) -> dict[str, Any]:
        name = self.projects.get(body["project"])
        if name is None:
            raise Refused(400, 401, "Invalid project id")
        return {"project": {"id": body["project"], "name": name}}

    def _projects_create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = _named(body)
        if name in self.projects.values():
            raise Refused(400, 801, f"Value combination already exists (name {name})")
        project = uuid.uuid4().hex
        self.projects[project] = name
        return {"id": project}

    # -- tasks -------------------------------------------------------------------------------------

    def _tasks_create(self, body: dict[str, Any]) -> dict[str, Any]:
        _named(body)
        if body.get("project") not in self.projects:
            raise Refused(400, 201, "Invalid project id")
        task = uuid.uuid4().hex
        empty: dict[str, Any] = {
            "script": {},
            "execution": {"artifacts": []},
            "hyperparams": {},
            "configuration": {},
            "models": {"input": [], "output": []},
            "tags": [],
            "runtime": {},
            "output": {"destination": ""},
            "status_reason": "",
            "status_message": "",
            "last_iteration": 0,
            "user": "u1",
            "created": "2026-11-23T10:00:00+00:00",
        }
        self.tasks[task] = Task({**empty, **body, "id": task, "status": "created"})
        return {"id": task}

    def _tasks_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [task.fields for task in self.tasks.values()]
        if body.get("id"):
            found = [fields for fields in found if fields["id"] in body["id"]]
        if body.get("project"):
            found = [fields for fields in found if fields["project"] in body["project"]]
        if body.get("name"):
            found = [fields for fields in found if re.search(body["name"], fields["name"])]
        if (condition := body.get("_any_")) is not None:
            pattern = re.compile(condition["pattern"])
            names = condition["fields"]
            found = [f for f in found if any(pattern.search(str(f.get(n, ""))) for n in names)]
        only = body.get("only_fields")
        if only:
            found = [{k: v for k, v in fields.items() if k in only} for fields in found]
        return {"tasks": found}

    def _tasks_get_by_id(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"task": self._task(body).fields}

    def _change(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        task = self._task(body)
        allowed = task.status in _FROM[name] or body.get("force")
        if not allowed or task.status in _NEVER.get(name, ()):
            raise Refused(400, 110, f"Invalid status change: {task.status} to {_STATUS[name]}")
        task.fields["status"] = _STATUS[name]
        task.fields["status_reason"] = body.get("status_reason", "")
        task.fields["status_message"] = body.get("status_message", "")
        task.transitions.append(_STATUS[name])
        return {"updated": 1, "fields": {"status": _STATUS[name]}}

    def _tasks_ping(self, body: dict[str, Any]) -> dict[str, Any]:
        self._task(body).pings += 1
        return {}

    def _tasks_edit(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._editable(body)
        task.fields |= {k: v for k, v in body.items() if k not in ("task", "force")}
        return {"updated": 1, "fields": {}}

    def _tasks_set_requirements(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"updated": 1, "fields": {}}

    def _tasks_edit_hyper_params(self, body: dict[str, Any]) -> dict[str, Any]:
        sections = self._editable(body).fields["hyperparams"]
        if body.get("replace_hyperparams") == "all":
            sections.clear()
        if body.get("replace_hyperparams") == "section":
            for section in {entry["section"] for entry in body["hyperparams"]}:
                sections.pop(section, None)
        for entry in body["hyperparams"]:
            sections.setdefault(entry["section"], {})[entry["name"]] = entry
        return {"updated": 1}

    def _tasks_edit_configuration(self, body: dict[str, Any]) -> dict[str, Any]:
        kept = self._editable(body).fields["configuration"]
        if body.get("replace_configuration"):
            kept.clear()
        kept |= {entry["name"]: entry for entry in body["configuration"]}
        return {"updated": 1}

    def _tasks_add_or_update_artifacts(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._editable(body)
        for artifact in body["artifacts"]:
            kept = task.fields["execution"]["artifacts"]
            kept[:] = [a for a in kept if a["key"] != artifact["key"]] + [artifact]
        return {"updated": 1}

    def _tasks_add_or_update_model(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] not in self.models:
            raise Refused(400, 201, "Invalid model id")
        kept = self._task(body).fields["models"][body["type"]]
        kept[:] = [m for m in kept if m["name"] != body["name"]]
        kept.append({"name": body["name"], "model": body["model"]})
        return {"updated": 1, "fields": {}}

    def _task(self, body: dict[str, Any]) -> Task:
        task = self.tasks.get(body["task"])
        if task is None:
            raise Refused(400, 101, f"Invalid task id {body['task']}")
        return task

    def _editable(self, body: dict[str, Any]) -> Task:
        task = self._task(body)
        if task.status != "created" and not body.get("force"):
            raise Refused(400, 110, "Invalid task status: cannot be edited")
        return task

    # -- models ------------------------------------------------------------------------------------

    def _models_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [m for m in self.models.values() if m.get("task") in body["task"]]
        return {"models": found}

    def _models_get_by_id(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"model": self._model(body)}

    def _models_create(self, body: dict[str, Any]) -> dict[str, Any]:
        _named(body)
        model = uuid.uuid4().hex
        made = {
            "created": "2026-11-23T10:00:00+00:00",
            "tags": [],
            "system_tags": [],
            "design": {},
            "labels": {},
        }
        self.models[model] = {**made, **body, "id": model}
        return {"id": model, "created": True}

    def _models_edit(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self._model(body)
        model |= {k: v for k, v in body.items() if k != "model"}
        return {"updated": 1, "fields": {}}

    def _models_delete(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.models[self._model(body)["id"]]
        for task in self.tasks.values():
            for kept in task.fields["models"].values():
                kept[:] = [m for m in kept if m["model"] != body["model"]]
        return {"deleted": True}

    def _model(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] not in self.models:
            raise Refused(400, 201, f"Invalid model id {body['model']}")
        return self.models[body["model"]]


def _named(body: dict[str, Any]) -> str:
    name = str(body["name"])
    if len(name) < 3:
        raise Refused(400, 800, "Data validation error (name: String value is too short)")
    return name
