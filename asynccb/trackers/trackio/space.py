"""
Find the Trackio server in a Space of Hugging Face, or make that Space.

Source: requests that `trackio.init` 0.43 was seen to send. Promises: each may be sent again. An
error says what is missing and what to do.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.client import Client
from asynccb.trackers.trackio.settings import hub_token

logger = logging.getLogger("asynccb")

_HINT: Final = "set HF_TOKEN to a token that may write to the Space"
_EMPTY: Final = "NO_APP_FILE"
"""Stage of a Space that was made and not filled."""
_THERE_ALREADY: Final = 409
_FILES: Final = {
    "README.md": (
        "---\nsdk: gradio\napp_file: app.py\ntags:\n - trackio\n"
        "hf_oauth: true\nhf_oauth_scopes:\n - write-repos\n---\n"
    ),
    "requirements.txt": "trackio[spaces,mcp]>=0.43,<1\n",
    "app.py": "import trackio\n\ntrackio.show()\n",
}
_AWAKE: Final = frozenset({"RUNNING", "RUNNING_BUILDING", "RUNNING_APP_STARTING", "SLEEPING"})
"""Stages in which a Space answers; a sleeping one is woken by a request."""


class _Owner(msgspec.Struct):
    name: str


class _Runtime(msgspec.Struct):
    stage: str = "RUNNING"


class FoundSpace(msgspec.Struct):
    """The Hub's description of a Space."""

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


@dataclass(frozen=True)
class Wanted:
    """The Space to use, and the way to make it if it is missing."""

    name: str
    bucket: str | None
    """What keeps its data, `namespace/name`; None takes the Space's name and `-bucket`."""
    private: bool | None
    """None leaves it to the Hub."""


async def find_space(hub: Client, wanted: Wanted) -> FoundSpace:
    """
    Return a Space that answers; the first time, make it.

    Raises `TransientError` while the Space is being built or is paused, and `AccessError` if this
    token can have none.
    """
    name = wanted.name if "/" in wanted.name else f"{await _own_namespace(hub)}/{wanted.name}"
    space = await _ask(hub, name)
    if space is None or space.runtime.stage == _EMPTY:
        await _make(hub, name, wanted)
        raise TransientError(f"the Space {name} was made and is being built", cause="BUILDING")
    if space.sdk == "static":
        raise AccessError(f"the Space {name} is static: it shows a project, and takes no rows")
    if space.runtime.stage not in _AWAKE:
        raise TransientError(
            f"the Space {name} is {space.runtime.stage}", cause=space.runtime.stage
        )
    return space


async def _ask(hub: Client, name: str) -> FoundSpace | None:
    try:
        return msgspec.convert(await hub.get(f"api/spaces/{quote(name)}"), FoundSpace)
    except RejectedError as error:
        if error.status == 404:
            return None
        raise AccessError(f"the Space {name} cannot be asked for: {error}") from error
    except msgspec.ValidationError as error:
        raise AccessError(f"this is no answer of the Hub about {name}: {error}") from error


async def _make(hub: Client, name: str, wanted: Wanted) -> None:
    """
    Make a Space that runs Trackio on a bucket, with the requests of `trackio.init`.

    Our token does not go into the Space, as theirs does: it asks the Hub about each token it gets.
    """
    bucket = wanted.bucket or f"{name}-bucket"
    seen = {None: {}, True: {"visibility": "private"}, False: {"visibility": "public"}}
    visibility = seen[wanted.private]
    owner, _, own_name = name.partition("/")
    space = f"api/spaces/{quote(name)}"
    place = {"name": own_name, "organization": owner, "type": "space", "sdk": "gradio"}
    await _once(hub, "POST", "api/repos/create", {**place, **visibility})
    await _once(hub, "POST", f"api/buckets/{quote(bucket)}", visibility)
    await _commit(hub, space)
    volume = {"type": "bucket", "source": bucket, "mountPath": "/data"}
    await _once(hub, "PUT", f"{space}/volumes", {"volumes": [volume]})
    for key, value in {"TRACKIO_DIR": "/data/trackio", "TRACKIO_BUCKET_ID": bucket}.items():
        await _once(hub, "POST", f"{space}/variables", {"key": key, "value": value})
    logger.info("Trackio: made the Space %s, with the bucket %s", name, bucket)


async def _commit(hub: Client, space: str) -> None:
    """Put the files into a Space, in one commit."""
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": "Run Trackio", "description": ""}}
    ]
    for path, text in _FILES.items():
        content = base64.b64encode(text.encode()).decode()
        file = {"content": content, "path": path, "encoding": "base64"}
        lines.append({"key": "file", "value": file})
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    try:
        await hub.request("POST", f"{space}/commit/main", content=data, headers=headers)
    except RejectedError as error:
        raise AccessError(f"the Space cannot be filled: {error}; {_HINT}") from error


async def _once(hub: Client, method: str, path: str, body: dict[str, Any]) -> None:
    """Send a request that has no effect if it was sent before."""
    headers = {"Content-Type": "application/json"}
    try:
        await hub.request(method, path, content=msgspec.json.encode(body), headers=headers)
    except RejectedError as error:
        if error.status != _THERE_ALREADY:
            raise AccessError(f"the Space cannot be made: {error}; {_HINT}") from error


async def _own_namespace(hub: Client) -> str:
    try:
        answer = await hub.get("api/whoami-v2")
        return msgspec.convert(answer, _Owner).name
    except (RejectedError, msgspec.ValidationError) as error:
        raise AccessError(f"the Hub does not say whose token this is: {error}; {_HINT}") from error
