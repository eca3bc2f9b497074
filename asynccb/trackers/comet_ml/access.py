"""
Reach a Comet server: its address, the key, the meaning of its statuses, and its limits.

Promises: the key is looked up when the connection is made and kept in the client alone; no message
quotes it. Sources: `comet_ml` 3.58 and Comet's documentation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import msgspec

from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.client import Client
from asynccb.delivery.rate import Bucket
from asynccb.trackers.comet_ml.config_files import setting
from asynccb.trackers.shared.addresses import quoted, server_parts

DEFAULT_URL: Final = "https://www.comet.com"
HINT: Final = "see that COMET_API_KEY is a key of this server that may write to the workspace"
_STATUSES: Final = Statuses(wait_headers=("Retry-After-Custom", "Retry-After"))
_CLIENT_PATH: Final = "/clientlib"


class _KeyParts(msgspec.Struct):
    base_url: str | None = msgspec.field(name="baseUrl", default=None)


def find_key(environ: Mapping[str, str]) -> str:
    """Return the key as it is sent; raise `AccessError` without a key."""
    key = setting("api_key", environ)
    if key is None:
        raise AccessError(
            "there is no Comet key: set COMET_API_KEY, or run `comet login`, which saves one in "
            "~/.comet.config"
        )
    bare, has_host, host = key.partition("*")
    return key if not has_host or host else bare


def host_in(key: str) -> str | None:
    """
    Return the address that a key of a server of one's own carries, behind a `*`.

    Raises `AccessError` for a key whose rest cannot be read.
    """
    _, _, encoded = key.partition("*")
    if not encoded:
        return None
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        address = msgspec.json.decode(decoded, type=_KeyParts).base_url
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise AccessError(
            f"the Comet key has {len(encoded)} characters behind its *, and they are no address in "
            "base64: copy the key again, whole, from your account"
        ) from None
    return None if address is None else server_root(address)


def server_root(address: str) -> str:
    """
    Return scheme, host and port, without the path `/clientlib/` of the SDK's variable.

    Raises `ConfigurationError` unless it is a server's address.
    """
    parts = server_parts(address)
    if parts is None or parts.path.rstrip("/").removesuffix(_CLIENT_PATH):
        raise ConfigurationError(
            f"the Comet server's address{quoted(address)} is none: it takes http(s)://host:port, "
            f"as in {DEFAULT_URL} (url, COMET_URL_OVERRIDE, or the part of the key behind its *)"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the Comet server's address comes with a user or password, which is not kept: set "
            "COMET_API_KEY instead"
        )
    return f"{parts.scheme}://{parts.netloc}"


def open_client(base_url: str, key: str, rate: Bucket | None = None) -> Client:
    """Return a client that sends the key."""
    headers = {"Authorization": key}
    return Client(base_url, headers=headers, hint=HINT, statuses=_STATUSES, rate=rate)
