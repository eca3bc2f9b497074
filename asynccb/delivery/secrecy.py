"""
Keep credentials out of messages and files.

Promises: if a server, a proxy or a library quotes a credential that we have sent to it, in any form
in which credentials travel, every message shows `***` instead.
"""

from __future__ import annotations

import base64
import html
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote

import msgspec

_LENGTH: Final = 8
"""Characters that make a part of a header long enough to be treated as a credential."""
_AUTHORIZATION: Final = ("authorization", "proxy-authorization")


def hide(text: str, hidden: Iterable[str]) -> str:
    """Return the text with `***` in place of each string in `hidden`."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


def header_secrets(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the strings to hide for headers that contain credentials."""
    found: set[str] = set()
    for name, value in headers.items():
        parts = value.replace(";", " ").split()
        found.update(part for part in parts if len(part) >= _LENGTH)
        if name.lower() in _AUTHORIZATION and len(parts) > 1:
            found.update(parts[1:])
            found.update(_password(parts[-1]))
    return _in_all_forms(found)


def proxy_secrets() -> tuple[str, ...]:
    """Return the strings to hide for the proxies that the environment names."""
    found: set[str] = set()
    for address in urllib.request.getproxies().values():
        user, _, host = address.partition("://")[2].rpartition("@")
        if not host or not user:
            continue
        user, _, password = user.partition(":")
        for form in (f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"):
            found.add(base64.b64encode(form.encode()).decode())
        # A token may take the place of the user's name.
        found.update((password, unquote(password)) if password else (user, unquote(user)))
    return _in_all_forms(found)


def _password(encoded: str) -> Iterator[str]:
    """Yield the password of HTTP's basic authorization, if `encoded` is one."""
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return
    if password := decoded.partition(":")[2]:
        yield password


def _in_all_forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the secrets, also as URLs, JSON and HTML write them, with the longest first."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        escaped = msgspec.json.encode(secret)[1:-1].decode()
        forms.update((secret, quote(secret), quote(secret, safe=""), escaped, html.escape(secret)))
    return tuple(sorted(forms, key=len, reverse=True))
