"""
What an HTTP answer means for delivery: taken, try later, never this one, or never anything.

Promises: a message names the method, the address, the status and the beginning of the body; it
never holds a header, a query or the user part of an address, where credentials travel, nor a
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
"""Statuses below 500 that may pass: time-out, too early, too many requests."""

_LONGEST_WAIT: Final = 3600.0
"""Seconds; a server that asks for more is asked again all the same."""

_EXCERPT: Final = 200
"""Characters of a body that a message quotes."""

NO_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a body that is no JSON: the second for a text in another encoding, as a
proxy's may be, and the last for one that is nested too deeply."""


@dataclass(frozen=True)
class Statuses:
    """
    Say what a server means by its statuses, where that differs from the usual.

    Usual is: 408, 425, 429 and 5xx are tried again; 401, 403 and redirects, which would turn a POST
    into a GET, are the end of the tracker; any other 4xx is a refusal of this request alone.
    """

    again: frozenset[int] = frozenset()
    reject: frozenset[int] = frozenset()
    give_up: frozenset[int] = frozenset()
    wait_headers: tuple[str, ...] = ("Retry-After",)
    """Headers that may say how long to wait, the first one that is there counts."""
    error: Callable[[bytes], tuple[str, str] | None] | None = None
    """Finds code and message in the body of an error, where these are no JSON members at its top;
    returns None for a body that is another's, such as a proxy's."""

    def tries_again(self, status: int) -> bool:
        """Tell whether the same request may be taken later."""
        if status in self.reject or status in self.give_up:
            return False
        return status in self.again or status in _TRANSIENT or status >= 500

    def gives_up(self, status: int) -> bool:
        """Tell whether no request will ever be taken."""
        if status in self.reject:
            return False
        return status in self.give_up or status in (401, 403) or 300 <= status < 400


USUAL: Final = Statuses()


@dataclass(frozen=True)
class Reply:
    """Hold a server's whole answer."""

    status: int
    headers: Mapping[str, str]
    """By name in any case."""
    content: bytes
    request: str
    """Method and address, for messages."""
    hidden: tuple[str, ...] = ()
    """Credentials that were sent, so that no message quotes them."""

    @property
    def is_success(self) -> bool:
        """Whether the server took the request."""
        return 200 <= self.status < 300

    @property
    def excerpt(self) -> str:
        """The beginning of the body on one line, without credentials."""
        # One that begins within the excerpt is to be hidden whole, and so found whole.
        end = 4 * (_EXCERPT + max(map(len, self.hidden), default=0))
        text = hide(self.content[:end].decode("utf-8", "replace"), self.hidden)
        return " ".join(text[:_EXCERPT].split()) or "(nothing)"

    def json(self) -> Any:
        """
        Return the body, decoded; raise `TransientError` where it is no JSON.

        A success without JSON is the page of something between the server and us, such as a proxy
        or a login: it goes as it came, and until then nothing is lost by trying again.
        """
        try:
            return msgspec.json.decode(self.content)
        except NO_JSON:
            raise self._of_another("something that is no JSON", "no JSON") from None

    def check_no_page(self) -> None:
        """
        Raise `TransientError` for a page, where nobody says what a success holds.

        A page is what something between the server and us sends in its stead.
        """
        if self.headers.get("Content-Type", "").strip().lower().startswith("text/html"):
            raise self._of_another("a page", "a page")

    def _of_another(self, what: str, cause: str) -> TransientError:
        return TransientError(
            f"{self.request} was answered with {self.status} and {what}, as by a proxy, a login "
            f"page or another program at this address: {self.excerpt}",
            cause=cause,
        )

    def wait(self, headers: Iterable[str]) -> float | None:
        """
        Return the seconds that the server asks us to wait, or None where it does not say.

        Both forms are read (RFC 9110, 10.2.3), up to an hour. A date is taken relative to the
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
        """Return the code, where there is one, and what the body says."""
        found = None if statuses.error is None else statuses.error(self.content)
        code = _error_code(self.content) if found is None else found[0]
        text = self.excerpt if found is None else hide(found[1], self.hidden)[:_EXCERPT]
        return None if code is None else hide(code, self.hidden), text

    def check(self, statuses: Statuses, hint: str) -> None:
        """Raise what the answer means, unless it is a success; `hint` is for an `AccessError`."""
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
                f"{self.request} was redirected to {target!r}: set the address to where the "
                "server is"
            )
        raise AccessError(f"{message}; {hint}" if hint else message)


def public_url(url: str) -> str:
    """
    Return an address without what may hold credentials: user, query and fragment.

    Nothing is left of one that cannot be taken apart.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def unreachable(error: Exception, request: str, hidden: Iterable[str]) -> DeliveryError:
    """Return what a request without an answer means: try again; a proxy may quote `hidden`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # It was refused before anything was sent, and certificates are renewed.
            return TransientError(
                f"{request} was not sent: the server's certificate is not trusted ("
                f"{cause.verify_message}); name its authority's certificate, or renew the server's",
                cause="certificate",
            )
        cause = cause.__cause__ or cause.__context__
    kind = type(error).__name__
    why = hide(f"{kind} {error}", hidden).rstrip()
    return TransientError(f"{request} got no answer: {why}", cause=kind)


def _unix_time(date: str) -> float | None:
    try:
        moment: datetime = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # the latter for a year or an hour that fits no integer
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _error_code(body: bytes) -> str | None:
    """
    Return the code of a JSON error, where it has one.

    It is `error_code`, `code` or `error`, if that is a text, or a number as `sdk_error_code`.
    """
    try:
        error = msgspec.json.decode(body)
    except NO_JSON:
        return None
    if not isinstance(error, dict):
        return None
    if isinstance(number := error.get("sdk_error_code"), int):  # its `code` is the status
        return str(number)
    code = error.get("error_code", error.get("code", error.get("error")))
    return code if isinstance(code, str) else None
