"""A server's answers: read as structures, and how a tracker rejects a record that was refused."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from asynccb._ground.exceptions import AccessError

T = TypeVar("T")


class Reject(Protocol):
    """`Tracker.reject`, for the files of a tracker that do not know the tracker."""

    def __call__(
        self, what: str, why: str, *, cause: str | None = None, record: Any = None
    ) -> None: ...


def shaped(answer: Any, shape: type[T], who: str) -> T:
    """Return an answer as a structure; raise `AccessError` if `who` gives no such answer."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise AccessError(f"this is no answer of {who}: {error}") from error
