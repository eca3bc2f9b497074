"""
Parse server addresses, and reduce them to the forms that are stored and displayed.

Promises: pure; an invalid address raises nothing; the stored and displayed forms contain no user,
password or query, the parts that may carry credentials.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from asynccb.delivery.answers import public_url

_REST: Final = re.compile(r"[?#;].*", re.DOTALL)


def split(address: str) -> SplitResult | None:
    """Return the parts of an address; None if it cannot be parsed."""
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
    """Return the form of an address that is stored and compared; it also has no trailing slash."""
    return "" if split(address) is None else public_url(address).rstrip("/")


def shown(address: str) -> str:
    """
    Return the form of an address, of any scheme, that a message may display.

    If the parts of the address are ambiguous, return "": any of them may contain a password.
    """
    parts = split(address)
    if parts is None or "@" in address.replace(parts.netloc, "", 1):
        return ""
    return _REST.sub("", address).replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)


def quoted(address: str) -> str:
    """Return the quoted address for a message, after a word such as `address`; it may be empty."""
    return f" {text!r}" if (text := shown(address)) else ""
