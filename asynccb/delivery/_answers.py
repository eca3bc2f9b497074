"""
What an HTTP answer means for delivery: taken, try later, never this one, or never anything.

Promises: a message names the method, the address, the status and the beginning of the body; it
never holds a header, a query or the user part of an address, where credentials travel.
"""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from asynccb._exceptions import AccessError, DeliveryError, RejectedError, TransientError

if TYPE_CHECKING:
    import httpx

_TRANSIENT: Final = frozenset({408, 425, 429})
"""Statuses below 500 that may pass: time-out, too early, too many requests."""

_LONGEST_WAIT: Final = 3600.0
"""Seconds; a server that asks for more is asked again all the same."""

_EXCERPT: Final = 200
"""Characters of a body that a message quotes."""


def public_url(url: str) -> str:
    """Return an address without the parts that may hold credentials: user, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def raise_for(answer: httpx.Response, request: str, hint: str = "") -> None:
    """
    Raise what the answer means, unless it is a success (2xx).

    `request` names the method and address; `hint` is what to do about an `AccessError`.
    408, 425, 429 and 5xx are a `TransientError` with the seconds of `Retry-After`; 401 and 403 are
    an `AccessError`, and so is a redirect, which would turn a POST into a GET; the rest are a
    `RejectedError`.
    """
    status = answer.status_code
    if answer.is_success:
        return
    message = f"{request} was answered with {status}: {excerpt(answer.content)}"
    if status in _TRANSIENT or status >= 500:
        raise TransientError(message, retry_after=retry_after(answer))
    if status in (401, 403):
        raise AccessError(_joined(message, hint))
    if 300 <= status < 400:
        target = public_url(answer.headers.get("Location", ""))
        raise AccessError(
            f"{request} was redirected to {target!r}: set the address to where the server is"
        )
    raise RejectedError(message, status=status, code=error_code(answer.content))


def decode(answer: httpx.Response, request: str, hint: str = "") -> Any:
    """Return the JSON of a successful answer; anything else is no such server: `AccessError`."""
    try:
        return msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        message = (
            f"{request} was answered with something that is no JSON: {excerpt(answer.content)}"
        )
        raise AccessError(_joined(message, hint)) from None


def unreachable(error: Exception, request: str) -> DeliveryError:
    """Return what a request without an answer means: try again, unless it is the certificate."""
    import ssl

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AccessError(
                f"{request} was not sent: the server's certificate is not trusted "
                f"({cause.verify_message}); name its authority's certificate, or renew the server's"
            )
        cause = cause.__cause__ or cause.__context__
    return TransientError(f"{request} got no answer: {type(error).__name__} {error}".rstrip())


def retry_after(answer: httpx.Response) -> float | None:
    """
    Return the seconds that the server asks us to wait, or None where it does not say.

    Both forms are read (RFC 9110, 10.2.3), up to an hour. A date is taken relative to the answer's
    own `Date`, so that a wrong clock on either side does no harm.
    """
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    until = _unix_time(value)
    if until is None:
        return None
    now = _unix_time(answer.headers.get("Date", ""))
    wait = until - (time.time() if now is None else now)
    return min(max(0.0, wait), _LONGEST_WAIT)


def _unix_time(date: str) -> float | None:
    try:
        moment: datetime = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def error_code(body: bytes) -> str | None:
    """Return the code of a JSON error (its `error_code` or `code`), where it has one."""
    try:
        error = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(error, dict):
        return None
    code = error.get("error_code", error.get("code"))
    return code if isinstance(code, str) else None


def excerpt(body: bytes) -> str:
    """Return the beginning of a body on one line."""
    text = body[: 4 * _EXCERPT].decode("utf-8", "replace")
    return " ".join(text[:_EXCERPT].split()) or "(nothing)"


def _joined(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message
