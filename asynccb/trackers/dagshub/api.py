"""
Call DagsHub's own API: look up a token's user and a repository, and put files into it.

Facts are from DagsHub's client 0.7.3. Promises: putting the same files again makes no commit, so
every call may be repeated after a `TransientError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb._journal.uploads import KeptFile
from asynccb.delivery.bodies import FilesBody
from asynccb.delivery.client import Client
from asynccb.trackers.shared.answers import shaped

_WHO: Final = "DagsHub"
_API: Final = "api/v1"
_FILES: Final = 100
"""Maximum number of files of one commit."""
_SIZE: Final = 1 << 30
"""Maximum bytes of one commit; a larger file has a commit of its own."""
_SUMMARY: Final = 100
"""Maximum characters of a commit's summary."""
_PASSING: Final = frozenset({"server error", "invalid last_commit", "missing last_commit"})
"""Errors after which a retry may succeed, for example if another commit was made before ours."""

T = TypeVar("T")


class _User(msgspec.Struct):
    username: str


class _Repo(msgspec.Struct):
    default_branch: str = "main"


class _Commit(msgspec.Struct):
    id: str = ""


class _Branch(msgspec.Struct):
    commit: _Commit


class DagsHubRepository:
    """A client of one DagsHub repository, `owner/name`."""

    def __init__(self, client: Client, repository: str, branch: str) -> None:
        self._client = client
        self._repository = repository
        self._branch = branch

    async def user(self) -> str:
        """Return the name of the user whose token is sent."""
        return shaped(await self._ask(f"{_API}/user"), _User, _WHO).username

    async def check(self) -> None:
        """Raise `AccessError` if the token cannot access the repository."""
        await self._repo()

    async def put(self, directory: str, files: Sequence[KeptFile], summary: str) -> None:
        """
        Put files below a directory of the branch, in one commit; replace files that differ.

        If the branch does not exist, it is created. DagsHub decides whether Git or DVC stores a
        file.
        """
        head = await self._head()
        branch = self._branch if head is not None else (await self._repo()).default_branch
        new = {} if head is not None else {"new_branch_name": self._branch}
        fields = {
            "commit_choice": "direct" if head is not None else "commit-to-new-branch",
            "commit_summary": summary[:_SUMMARY],
            "versioning": "auto",
            "last_commit": head or "",
            "is_dvc_dir": "true",
            **new,
        }
        form = FilesBody(tuple((file.path, file.name) for file in files), "files", fields)
        path = f"{self._path()}/content/{quote(branch)}/{quote(directory)}"
        try:
            await self._client.request("PUT", path, content=form)
        except RejectedError as error:
            if error.code in _PASSING:
                raise TransientError(str(error), cause=error.code) from error
            raise

    async def _head(self) -> str | None:
        """Return the last commit of the branch, or None if the branch does not exist."""
        try:
            answer = await self._client.get(f"{self._path()}/branches/{quote(self._branch)}")
        except RejectedError as error:
            if error.status == 404:
                return None
            raise
        return shaped(answer, _Branch, _WHO).commit.id

    async def _repo(self) -> _Repo:
        return shaped(await self._ask(self._path()), _Repo, _WHO)

    async def _ask(self, path: str) -> Any:
        try:
            return await self._client.get(path)
        except RejectedError as error:
            raise AccessError(
                f"no DagsHub repository {self._repository} was found with this token: {error}"
            ) from error

    def _path(self) -> str:
        return f"{_API}/repos/{self._repository}"


def commits(files: Sequence[KeptFile]) -> Iterator[list[KeptFile]]:
    """Yield groups of files, one for each commit."""
    group: list[KeptFile] = []
    size = 0
    for file in files:
        bytes_ = file.path.stat().st_size
        if group and (len(group) == _FILES or size + bytes_ > _SIZE):
            yield group
            group, size = [], 0
        group.append(file)
        size += bytes_
    if group:
        yield group
