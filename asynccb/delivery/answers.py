"""
Classify an HTTP answer: accepted, try later, never this record, or never any record.

Promises: a message names the method, the address, the status and the beginning of the body. It
never contains a header, a query or the user part of an address, where credentials travel, or a
credential that the server quotes.
"""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from asynccb._ground.exceptions import (
    AccessError,
    DeliveryError,
    FaultError,
    RejectedError,
    TransientError,
)
from asynccb.delivery.secrecy import hide

_TRANSIENT: Final = frozenset({408, 425, 429})
"""Statuses below 500 that may be temporary: time-out, too early, too many requests."""

_LONGEST_WAIT: Final = 3600.0
"""Seconds. If a server asks for a longer wait, it is asked again after this time all the same."""

_EXCERPT: Final = 200
"""Characters of a body that a message quotes."""

NO_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors that msgspec raises for a body that is not JSON: `UnicodeDecodeError` for text in another
encoding, such as a proxy's page, and `RecursionError` for JSON that is nested too deeply."""


@dataclass(frozen=True)
class Statuses:
    """
    One server's meanings of HTTP statuses, if they differ from the usual ones.

    Usually, requests answered with 408, 425, 429 and 5xx are tried again. 401, 403 and redirects,
    which would turn a POST into a GET, end the tracker. Any other 4xx refuses this request alone.
    """

    again: frozenset[int] = frozenset()
    reject: frozenset[int] = frozenset()
    give_up: frozenset[int] = frozenset()
    wait_headers: tuple[str, ...] = ("Retry-After",)
    """Headers that may contain the time to wait; the first header present counts."""
    error: Callable[[bytes], tuple[str, str] | None] | None = None
    """Finds code and message in the body of an error, for a server that does not send them as
    top-level JSON members. Returns None for a body that another program sent, such as a proxy."""

    def tries_again(self, status: int) -> bool:
        """Return whether the server may accept the same request later."""
        if status in self.reject or status in self.give_up:
            return False
        return status in self.again or status in _TRANSIENT or status >= 500

    def gives_up(self, status: int) -> bool:
        """Return whether the server will never accept any request."""
        if status in self.reject:
            return False
        return status in self.give_up or status in (401, 403) or 300 <= status < 400


USUAL: Final = Statuses()


@dataclass(frozen=True)
class Reply:
    """A server's complete answer."""

    status: int
    headers: Mapping[str, str]
    """By name, in upper or lower case."""
    content: bytes
    request: str
    """Method and address, for messages."""
    hidden: tuple[str, ...] = ()
    """Credentials that were sent; no message quotes them."""

    @property
    def is_success(self) -> bool:
        """Whether the server accepted the request."""
        return 200 <= self.status < 300

    @property
    def excerpt(self) -> str:
        """The beginning of the body on one line, without credentials."""
        # A credential that begins within the excerpt is found, and hidden, only if it is complete.
        end = 4 * (_EXCERPT + max(map(len, self.hidden), default=0))
        text = hide(self.content[:end].decode("utf-8", "replace"), self.hidden)
        return " ".join(text[:_EXCERPT].split()) or "(nothing)"

    def json(self) -> Any:
        """
        Return the decoded body; raise `TransientError` if it is not JSON.

        A success without JSON is a page from a program between the server and us, such as a proxy
        or a login. Such pages disappear again, and trying until then loses nothing.
        """
        try:
            return msgspec.json.decode(self.content)
        except NO_JSON:
            raise self._of_another("a body that is not JSON", "no JSON") from None

    def check_no_page(self) -> None:
        """
        Raise `TransientError` if the answer is an HTML page.

        This is for requests whose successful answer has no specified content. A page comes from a
        program between the server and us.
        """
        if self.headers.get("Content-Type", "").strip().lower().startswith("text/html"):
            raise self._of_another("a page", "a page")

    def _of_another(self, what: str, cause: str) -> TransientError:
        return TransientError(
            f"{self.request} was answered with {self.status} and {what}, perhaps by a proxy, a "
            f"login page or another program at this address: {self.excerpt}",
            cause=cause,
        )

    def wait(self, headers: Iterable[str]) -> float | None:
        """
        Return the seconds that the server asks us to wait, or None if it asks for no wait.

        Both forms are parsed (RFC 9110, 10.2.3), up to an hour. A date is measured from the
        answer's own `Date`, so that a wrong clock on either side does no harm.
        """
        value = next((self.headers[name] for name in headers if name in self.headers), "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit():
            return min(float(value), _LONGEST_WAIT)
        until = _unix_time(value)
        if until is None:
            return None
        now = _unix_time(self.headers.get("Date", ""))
        wait = until - (time.time() if now is None else now)
        return min(max(0.0, wait), _LONGEST_WAIT)

    def _error(self, statuses: Statuses) -> tuple[str | None, str]:
        """Return the error code, or None, and the text of the body."""
        found = None if statuses.error is None else statuses.error(self.content)
        code = _error_code(self.content) if found is None else found[0]
        text = self.excerpt if found is None else hide(found[1], self.hidden)[:_EXCERPT]
        return None if code is None else hide(code, self.hidden), text

    def check(self, statuses: Statuses, hint: str) -> None:
        """Raise the matching error unless the answer is a success; an `AccessError` adds `hint`."""
        if self.is_success:
            return
        code, text = self._error(statuses)
        message = f"{self.request} was answered with {self.status}: {text}"
        if statuses.tries_again(self.status):
            wait = self.wait(statuses.wait_headers)
            if self.status < 500:
                raise TransientError(message, retry_after=wait, cause=str(self.status))
            raise FaultError(message, status=self.status, code=code, retry_after=wait)
        if not statuses.gives_up(self.status):
            raise RejectedError(message, status=self.status, code=code)
        if 300 <= self.status < 400:
            target = hide(public_url(self.headers.get("Location", "")), self.hidden)
            raise AccessError(
                f"{self.request} was redirected to {target!r}: configure the address at which the "
                "server itself answers"
            )
        raise AccessError(f"{message}; {hint}" if hint else message)


def public_url(url: str) -> str:
    """
    Return an address without the parts that may contain credentials: user, query and fragment.

    Returns an empty text for an address that cannot be parsed.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def unreachable(error: Exception, request: str, hidden: Iterable[str]) -> DeliveryError:
    """
    Return the error for a request that received no answer: try again.

    `hidden` are the credentials that a proxy may quote in its error.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # We refused it before anything was sent, and certificates are renewed.
            return TransientError(
                f"{request} was not sent: the server's certificate is not trusted ("
                f"{cause.verify_message}); configure its authority's certificate, or renew the "
                "server's",
                cause="certificate",
            )
        cause = cause.__cause__ or cause.__context__
    kind = type(error).__name__
    why = hide(f"{kind} {error}", hidden).rstrip()
    return TransientError(f"{request} got no answer: {why}", cause=kind)


def _unix_time(date: str) -> float | None:
    try:
        moment: datetime = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # the latter for a year or an hour beyond the range
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _error_code(body: bytes) -> str | None:
    """
    Return the code in the body of a JSON error, or None.

    The code is `sdk_error_code`, if that is a number. Otherwise it is the first present of
    `error_code`, `code` and `error`, if that is a text.
    """
    try:
        error = msgspec.json.decode(body)
    except NO_JSON:
        return None
    if not isinstance(error, dict):
        return None
    if isinstance(number := error.get("sdk_error_code"), int):  # beside it, `code` is the status
        return str(number)
    code = error.get("error_code", error.get("code", error.get("error")))
    return code if isinstance(code, str) else None
