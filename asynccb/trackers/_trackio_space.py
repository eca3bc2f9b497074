"""
Finding the Trackio server that runs in a Space of Hugging Face.

Knows two requests of the Hub: whose a token is, and what a Space is and where it runs. Promises:
what is missing is said with what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from asynccb._exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.client import Client
from asynccb.trackers._trackio_settings import hub_token

_HINT: Final = "set HF_TOKEN to a token that may write to the Space"
_AWAKE: Final = frozenset({"RUNNING", "RUNNING_BUILDING", "RUNNING_APP_STARTING", "SLEEPING"})
"""Stages in which a Space answers; a sleeping one is woken by a request."""


class _Owner(msgspec.Struct):
    name: str


class _Runtime(msgspec.Struct):
    stage: str = "RUNNING"


class FoundSpace(msgspec.Struct):
    """Hold what the Hub says about a Space."""

    id: str
    sdk: str = ""
    host: str = ""
    runtime: _Runtime = msgspec.field(default_factory=_Runtime)

    @property
    def url(self) -> str:
        """Where its server is."""
        if self.host:
            return self.host
        name = self.id.replace("/", "-").replace("_", "-").replace(".", "-").lower()
        return f"https://{name}.hf.space"


def hub_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header with the token of Hugging Face; raises `AccessError` without one."""
    token = hub_token(environ)
    if not token:
        raise AccessError(f"a Trackio Space needs a token of Hugging Face: {_HINT}")
    return {"Authorization": f"Bearer {token}"}


async def find_space(hub: Client, name: str, command: str) -> FoundSpace:
    """
    Return a Space that answers.

    Raises `TransientError` while it is being built or is paused, and `AccessError` where there is
    none, with the command that makes it: it is not made here, since a copy of Trackio goes into it.
    """
    if "/" not in name:
        name = f"{await _own_namespace(hub)}/{name}"
    try:
        answer = await hub.get(f"api/spaces/{quote(name)}")
        space = msgspec.convert(answer, FoundSpace)
    except RejectedError as error:
        raise AccessError(
            f"there is no Space {name} for this token ({error}): make it once with `{command}`"
        ) from error
    except msgspec.ValidationError as error:
        raise AccessError(f"this is no answer of the Hub about {name}: {error}") from error
    if space.sdk == "static":
        raise AccessError(f"the Space {name} is static: it shows a project, and takes no rows")
    if space.runtime.stage not in _AWAKE:
        raise TransientError(
            f"the Space {name} is {space.runtime.stage}", cause=space.runtime.stage
        )
    return space


async def _own_namespace(hub: Client) -> str:
    try:
        answer = await hub.get("api/whoami-v2")
        return msgspec.convert(answer, _Owner).name
    except (RejectedError, msgspec.ValidationError) as error:
        raise AccessError(f"the Hub does not say whose token this is: {error}; {_HINT}") from error
