"""
Keeping credentials out of what is written and said.

Promises: what a server, a proxy or a library quotes of the credentials that we have sent to it, in
any form in which they travel, is `***` in every message.
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
"""Characters from which on a part of a header is taken for a credential."""
_AUTHORIZATION: Final = ("authorization", "proxy-authorization")


def hide(text: str, hidden: Iterable[str]) -> str:
    """Return the text without what is to be hidden."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


def header_secrets(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is to be hidden of headers that hold credentials."""
    found: set[str] = set()
    for name, value in headers.items():
        parts = value.replace(";", " ").split()
        found.update(part for part in parts if len(part) >= _LENGTH)
        if name.lower() in _AUTHORIZATION and len(parts) > 1:
            found.update(parts[1:])
            found.update(_password(parts[-1]))
    return _in_all_forms(found)


def proxy_secrets() -> tuple[str, ...]:
    """Return what is to be hidden of the proxies that the environment names."""
    found: set[str] = set()
    for address in urllib.request.getproxies().values():
        user, _, host = address.partition("://")[2].rpartition("@")
        if not host or not user:
            continue
        user, _, password = user.partition(":")
        for form in (f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"):
            found.add(base64.b64encode(form.encode()).decode())
        # A token may stand in the place of the user.
        found.update((password, unquote(password)) if password else (user, unquote(user)))
    return _in_all_forms(found)


def _password(encoded: str) -> Iterator[str]:
    """Yield the password of HTTP's basic authorization."""
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return
    if password := decoded.partition(":")[2]:
        yield password


def _in_all_forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return the secrets as URLs, JSON and pages write them, too; the longest first."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        escaped = msgspec.json.encode(secret)[1:-1].decode()
        forms.update((secret, quote(secret), quote(secret, safe=""), escaped, html.escape(secret)))
    return tuple(sorted(forms, key=len, reverse=True))
