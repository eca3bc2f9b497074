"""
Every error that asynccb raises on purpose.

    AsyncCCBError
    ├── DefinitionError (TypeError)        not a callback, a misspelled hook, a wrong signature
    ├── ConfigurationError (ValueError)    an argument or an environment variable that cannot work
    ├── UnknownEventError (ValueError)     an event that does not exist
    ├── HookReturnError (TypeError)        a hook returned neither a control nor None
    ├── FrozenError (AttributeError)       writing to a snapshot
    │   └── UndecidedError                 writing to the control in a hook that may not decide
    ├── CallbackError (RuntimeError)       a hook failed and its callback has `on_error = "raise"`
    │   └── LateDecisionError              a decision is late and its hook has `on_late="raise"`
    ├── AgreementError (RuntimeError)      the ranks cannot agree: one is missing or differs
    ├── MailboxFullError (RuntimeError)    a mailbox is full under `overflow = "raise"`
    ├── ClosedError (RuntimeError)         an event after `close()`
    ├── ForkedError (RuntimeError)         an event in a forked child
    ├── StateFileError (ValueError)        a `trainer_state.json` that cannot be read
    ├── JournalError (ValueError)          a journal that cannot be read
    │   └── BusyError                      a journal that another process is delivering
    ├── TraceError (ValueError)            a decision trace that cannot be replayed
    └── DeliveryError (RuntimeError)       a tracker's server did not accept a request
        ├── TransientError                 it may accept the request later: try again
        │   └── FaultError                 it failed over this request: others may pass
        ├── RejectedError                  it will never accept this record: send the next
        └── AccessError                    it accepts nothing from us: give this tracker up
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class AsyncCCBError(Exception):
    """The base of every error that asynccb raises on purpose."""


class DefinitionError(AsyncCCBError, TypeError):
    """A callback cannot work; raised when it is added."""


class ConfigurationError(AsyncCCBError, ValueError):
    """An argument or an environment variable cannot work; raised as soon as it is read."""


class UnknownEventError(AsyncCCBError, ValueError):
    """The event does not exist."""


class HookReturnError(AsyncCCBError, TypeError):
    """A hook returned neither None nor a control."""


class FrozenError(AsyncCCBError, AttributeError):
    """A hook tried to write to a snapshot."""


class UndecidedError(FrozenError):
    """An async hook that is not marked `@decides` wrote to the control."""


class CallbackError(AsyncCCBError, RuntimeError):
    """A hook failed; raised on the training thread, with the hook's own exception as its cause."""


class LateDecisionError(CallbackError):
    """A decision did not arrive in time, and its hook has `on_late="raise"`."""


class AgreementError(AsyncCCBError, RuntimeError):
    """The ranks of a run cannot agree; the message names the ranks that are missing or differ."""


class MailboxFullError(AsyncCCBError, RuntimeError):
    """An event was emitted while a mailbox with `overflow = "raise"` was full."""


class ClosedError(AsyncCCBError, RuntimeError):
    """An event was emitted after `close()`."""


class ForkedError(AsyncCCBError, RuntimeError):
    """A dispatcher was used in a process forked from its own."""


class StateFileError(AsyncCCBError, ValueError):
    """A state file cannot be read; the message states the defect."""


class JournalError(AsyncCCBError, ValueError):
    """A journal cannot be read; the message states the place of the damage."""


class BusyError(JournalError):
    """Another process is delivering the journal: try again when that process has ended."""


class TraceError(AsyncCCBError, ValueError):
    """A decision trace cannot be replayed in this run; the message states the reason."""


class DeliveryError(AsyncCCBError, RuntimeError):
    """A tracker's server did not accept a request."""


class TransientError(DeliveryError):
    """A failure that may pass: the same request may be sent again."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, cause: str | None = None
    ) -> None:
        """
        Store the seconds to wait before a retry, and the kind of failure.

        `cause` is the same text for all failures of one kind.
        """
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause


class FaultError(TransientError):
    """The server answered that it failed over this request (5xx)."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, cause=str(status))
        self.status = status
        self.code = code


class RejectedError(DeliveryError):
    """The server will never accept this request as it is."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def cause(self) -> str:
        """Status and code, equal for refusals of one kind; the message if there is no status."""
        return str(self) if self.status is None else f"{self.status} {self.code or ''}"


class AccessError(DeliveryError):
    """The server accepts nothing from us: wrong credentials, permissions or address."""


@contextlib.contextmanager
def naming_damage(
    path: Path, *errors: type[Exception], advice: str = "resume from an earlier checkpoint"
) -> Iterator[None]:
    """Turn these errors of reading a file into a `ConfigurationError` with the file's path."""
    try:
        yield
    except errors as error:
        raise ConfigurationError(f"{path} is damaged ({error!r}); {advice}") from error
