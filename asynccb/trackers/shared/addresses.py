"""
Addresses of servers: taken apart, as they are kept, and as they are shown.

Promises: pure; raises nothing for what is no address; what is kept or shown holds no user, password
or query, where credentials travel.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from asynccb.delivery.answers import public_url

_REST: Final = re.compile(r"[?#;].*", re.DOTALL)


def split(address: str) -> SplitResult | None:
    """Return the parts of an address; None where it cannot be taken apart."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts


def server_parts(address: str) -> SplitResult | None:
    """Return the parts of `http(s)://host…`; None for anything else."""
    parts = split(address)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts


def kept(address: str) -> str:
    """Return an address as it is kept and compared: also without a slash at the end."""
    return "" if split(address) is None else public_url(address).rstrip("/")


def shown(address: str) -> str:
    """
    Return an address as a message may show it, whatever it is an address of.

    Nothing is left of one whose parts are not certain: a password may be in any of them.
    """
    parts = split(address)
    if parts is None or "@" in address.replace(parts.netloc, "", 1):
        return ""
    return _REST.sub("", address).replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)


def quoted(address: str) -> str:
    """Return what stands in a message behind a word such as `address`: nothing, or a quotation."""
    return f" {text!r}" if (text := shown(address)) else ""
