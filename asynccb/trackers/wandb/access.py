"""
How a W&B server is reached: its address, the key, and what its statuses mean.

Promises: the key is looked up when the connection is made and kept in the client alone; no message
quotes it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from asynccb._ground.environment import switch
from asynccb._ground.exceptions import AccessError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.client import Client
from asynccb.trackers.shared.addresses import shown
from asynccb.trackers.wandb.config_files import saved_key, setting

DEFAULT_BASE: Final = "https://api.wandb.ai"
_HINT: Final = "see that WANDB_API_KEY, or what `wandb login` saved, is a key of this server"
_NO_KEY: Final = (
    "there is no W&B key for {base}: set WANDB_API_KEY, or run `wandb login`, which saves one in "
    "~/.netrc"
)

_TOKEN: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_KEY: Final = re.compile(r"([^-]*-)?[\w-]{40,}", re.ASCII)

STATUSES: Final = Statuses(
    give_up=frozenset({404, 410, 501}), wait_headers=("Retry-After", "RateLimit-Reset")
)
"""404 and 410: the run, or its server, is gone. These are the rules of `wandb` 0.31, except for
400, 413 and 422, after which the vendor's client stops sending for good."""
SIGNED: Final = Statuses(again=frozenset({401, 403}))
"""A signed address is refused after an hour; a new one is then requested."""


def api_key(base_url: str, environ: Mapping[str, str]) -> str | None:
    """
    Return the key: of `WANDB_API_KEY`, else of netrc, else of a settings file.

    Raises `AccessError` for a key that no server can have issued.
    """
    key = environ.get("WANDB_API_KEY", "").strip()
    key = key or saved_key(base_url, environ) or setting("api_key", environ) or ""
    if not key:
        return None
    if not (_KEY.fullmatch(key) or _TOKEN.fullmatch(key)):
        raise AccessError(
            f"the W&B key has {len(key)} characters, and is none: a key has 40 or more letters, "
            "digits and underscores; copy it again from the settings page of your account"
        )
    return key


def has_key(environ: Mapping[str, str]) -> bool:
    """Tell whether runs can be logged, now or by a sync: there is a key, or it is offline."""
    mode = environ.get("WANDB_MODE", "").strip()
    if mode == "disabled" or switch(environ, "WANDB_DISABLED"):
        return False
    base_url = environ.get("WANDB_BASE_URL", "").strip() or DEFAULT_BASE
    try:
        return mode in ("offline", "dryrun") or api_key(base_url, environ) is not None
    except AccessError:
        return True  # whoever has a key that is broken wants to hear of it


def open_client(base_url: str) -> Client:
    """Return a client with the key; raise `AccessError` without a key."""
    key = api_key(base_url, os.environ)
    if key is None:
        raise AccessError(_NO_KEY.format(base=base_url))
    encoded = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {encoded}"}
    return Client(base_url, headers=headers, hint=_HINT, statuses=STATUSES)


def open_storage(base_url: str) -> Client:
    """Return a client for addresses that the server has signed; it sends no key."""
    return Client(base_url, statuses=SIGNED)


def app_url(base_url: str, environ: Mapping[str, str]) -> str:
    """Return the address of the pages for people: `WANDB_APP_URL`, or derived from the server's."""
    if given := shown(environ.get("WANDB_APP_URL", "").strip()).rstrip("/"):
        return given
    parts = urlsplit(base_url)
    if parts.netloc.startswith("api.wandb."):
        return f"{parts.scheme}://{parts.netloc.removeprefix('api.')}"
    if parts.netloc.startswith("api."):
        return f"{parts.scheme}://app.{parts.netloc.removeprefix('api.')}"
    return base_url
