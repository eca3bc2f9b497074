"""
What stands before an MLflow server to make it DagsHub: a prefix, credentials, and a repository.

After the client 0.7.3. Used as a front's rules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from urllib.parse import unquote, urlsplit

from tests.trackers.front import pass_on
from tests.trackers.scripted import Answer, Request

_FIELDS = ["commit_summary", "versioning", "last_commit", "is_dvc_dir"]

# What the client takes, and refuses to do without.
_USER = {
    **dict.fromkeys(("avatar_url", "public_email", "website", "company", "description")),
    "id": 1,
    "login": "ada",
    "full_name": "Ada",
    "username": "ada",
}
_REPO = {
    **dict.fromkeys(("parent", "ssh_url", "website", "permissions")),
    **dict.fromkeys(("private", "fork", "empty", "mirror"), False),
    **dict.fromkeys(
        ("size", "stars_count", "forks_count", "watchers_count", "open_issues_count"), 0
    ),
    **dict.fromkeys(("html_url", "clone_url", "created_at", "updated_at", "description"), ""),
    "id": 1,
    "owner": _USER,
    "name": "proj",
    "full_name": "ada/proj",
    "default_branch": "main",
}
_COMMIT = {
    **dict.fromkeys(("author", "committer", "added", "removed", "modified")),
    **dict.fromkeys(("message", "url", "timestamp"), ""),
}


@dataclass
class Commit:
    summary: str
    files: dict[str, bytes]


@dataclass
class Branch:
    commits: list[Commit] = field(default_factory=list)

    @property
    def head(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()

    @property
    def files(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for commit in self.commits:
            found.update(commit.files)
        return found


class DagsHub:
    """Hold one repository, `ada/proj`, of the user `ada`."""

    def __init__(self, upstream: str, token: str) -> None:
        self.upstream = upstream
        self.token = token
        self.branches = {"main": Branch([Commit("first", {"README.md": b"proj"})])}
        self.racing = 0
        """Commits of somebody else that come before our next ones."""
        self.failing = 0
        """Server errors before our next commits."""
        self.refused: list[str] = []

    async def __call__(self, request: Request) -> Answer:
        path = unquote(urlsplit(request.target).path)
        if path.startswith("/ada/proj.mlflow/api/2.0/"):
            if request.headers.get("authorization") != _basic("ada", self.token):
                return Answer(401, b"Unauthorized")
            target = request.target.removeprefix("/ada/proj.mlflow")
            return await pass_on(self.upstream, request, target)
        if request.headers.get("authorization") not in (
            f"Bearer {self.token}",
            _basic("ada", self.token),
        ):
            return Answer(401, b'{"error": "unauthorized"}')
        if path == "/api/v1/user":
            return _json(200, _USER)
        if path == "/api/v1/repos/ada/proj":
            return _json(200, _REPO)
        if found := re.fullmatch(r"/api/v1/repos/ada/proj/branches/(.+)", path):
            branch = self.branches.get(found[1])
            if branch is None:
                return _json(404, {"error": "not found"})
            return _json(200, {"name": found[1], "commit": {**_COMMIT, "id": branch.head}})
        if found := re.fullmatch(r"/api/v1/repos/ada/proj/content/([^/]+)/(.*)", path):
            return self._put(request, found[1], found[2])
        return self._refuse(404, f"no such address: {path}")

    def _refuse(self, status: int, error: str) -> Answer:
        self.refused.append(error)
        return _json(status, {"error": error, "details": ""})

    def _put(self, request: Request, name: str, directory: str) -> Answer:
        if self.failing:
            self.failing -= 1
            return self._refuse(400, "server error")
        fields, files = _form(request)
        order = list(fields)
        branch = self.branches[name]
        if fields["commit_choice"] == "commit-to-new-branch":
            if order != ["commit_choice", *_FIELDS, "new_branch_name"]:
                return self._refuse(400, f"fields {order}")
            branch = self.branches[fields["new_branch_name"]] = Branch(list(branch.commits))
        elif order != ["commit_choice", *_FIELDS]:
            return self._refuse(400, f"fields {order}")
        if len(fields["commit_summary"]) > 100:
            return self._refuse(400, "summary too long")
        if self.racing:
            self.racing -= 1
            branch.commits.append(Commit("of somebody else", {"other": b"x"}))
        new = {f"{directory}/{path}": content for path, content in files.items()}
        if not fields["last_commit"] and not branch.files.keys().isdisjoint(new):
            return self._refuse(400, "missing last_commit")
        if fields["last_commit"] not in ("", branch.head):
            return self._refuse(400, "invalid last_commit")
        if all(branch.files.get(path) == content for path, content in new.items()):
            return Answer(204, b"")
        branch.commits.append(Commit(fields["commit_summary"], new))
        return Answer(200, b"{}", {"ETag": branch.head})


def _form(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    message = message_from_bytes(head + request.body)
    for part in message.get_payload():
        assert isinstance(part, Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        name = part.get_param("name", header="content-disposition")
        if name == "files":
            files[str(part.get_filename())] = content
        else:
            assert not files, "a field behind the files"
            fields[str(name)] = content.decode()
    return fields, files


def _basic(user: str, secret: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


def _json(status: int, body: object) -> Answer:
    return Answer(status, json.dumps(body).encode())
