"""
Every error that asynccb raises on purpose.

    AsyncCCBError
    ├── DefinitionError (TypeError)        a callback that is none, a misspelt hook, a wrong
    signature
    ├── ConfigurationError (ValueError)    an argument or an environment variable that cannot work
    ├── UnknownEventError (ValueError)     an event that does not exist
    ├── HookReturnError (TypeError)        a hook that returned something else than a control or
    None
    ├── FrozenError (AttributeError)       writing to a snapshot
    │   └── UndecidedError                 writing to the control in a hook that may not decide
    ├── CallbackError (RuntimeError)       a hook failed and its callback says `on_error = "raise"`
    │   └── LateDecisionError              a decision is late and its hook says `on_late="raise"`
    ├── AgreementError (RuntimeError)      ranks that cannot agree: one is missing or differs
    ├── MailboxFullError (RuntimeError)    a mailbox is full and its callback says `overflow =
    "raise"`
    ├── ClosedError (RuntimeError)         an event after `close()`
    ├── ForkedError (RuntimeError)         an event in a forked child
    ├── StateFileError (ValueError)        a `trainer_state.json` that cannot be read
    ├── JournalError (ValueError)          a journal that cannot be read
    │   └── BusyError                      a journal that another process is delivering
    ├── TraceError (ValueError)            a decision trace that cannot be replayed
    └── DeliveryError (RuntimeError)       a tracker's server did not take what was sent
        ├── TransientError                 it may take it later: try again
        │   └── FaultError                 it has failed over this request: others may pass
        ├── RejectedError                  it will never take this record: go on with the next
        └── AccessError                    it will not take anything: give this tracker up
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class AsyncCCBError(Exception):
    """Catch this to catch every error that asynccb raises on purpose."""


class DefinitionError(AsyncCCBError, TypeError):
    """Signal a callback that cannot work, at the moment it is added."""


class ConfigurationError(AsyncCCBError, ValueError):
    """Signal an argument or an environment variable that cannot work, where it was given."""


class UnknownEventError(AsyncCCBError, ValueError):
    """Signal an event that does not exist."""


class HookReturnError(AsyncCCBError, TypeError):
    """Signal a hook that returned neither None nor a control."""


class FrozenError(AsyncCCBError, AttributeError):
    """Signal an attempt to write to a snapshot."""


class UndecidedError(FrozenError):
    """Signal a write to the control in an async hook that is not marked `@decides`."""


class CallbackError(AsyncCCBError, RuntimeError):
    """Carry a hook's failure to the training thread; its cause is the hook's own exception."""


class LateDecisionError(CallbackError):
    """Signal a decision that was not there in time, where its hook says `on_late="raise"`."""


class AgreementError(AsyncCCBError, RuntimeError):
    """Signal that the ranks of a run cannot agree, naming those that are missing or differ."""


class MailboxFullError(AsyncCCBError, RuntimeError):
    """Signal an event that found the mailbox full under `overflow = "raise"`."""


class ClosedError(AsyncCCBError, RuntimeError):
    """Signal an event that was emitted after `close()`."""


class ForkedError(AsyncCCBError, RuntimeError):
    """Signal the use of a dispatcher in a process forked from its own."""


class StateFileError(AsyncCCBError, ValueError):
    """Signal a state file that cannot be read, saying what is wrong with it."""


class JournalError(AsyncCCBError, ValueError):
    """Signal a journal that cannot be read, saying where it breaks."""


class BusyError(JournalError):
    """Signal a journal that another process is delivering: try again when that has ended."""


class TraceError(AsyncCCBError, ValueError):
    """Signal a decision trace that cannot be replayed in this run, saying why."""


class DeliveryError(AsyncCCBError, RuntimeError):
    """Signal that a tracker's server did not take what was sent."""


class TransientError(DeliveryError):
    """Signal a failure that may pass: the same request may be sent again."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, cause: str | None = None
    ) -> None:
        """Take how long to wait, in seconds, and what failures of one kind have in common."""
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause


class FaultError(TransientError):
    """Signal an answer by which the server says that it failed over this request (5xx)."""

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
    """Signal that the server will never take this request as it is."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def cause(self) -> str:
        """What refusals of one kind have in common; the message, where there was no answer."""
        return str(self) if self.status is None else f"{self.status} {self.code or ''}"


class AccessError(DeliveryError):
    """Signal that the server takes nothing from us: credentials, permissions or a wrong address."""


@contextlib.contextmanager
def naming_damage(
    path: Path, *errors: type[Exception], advice: str = "resume from an earlier checkpoint"
) -> Iterator[None]:
    """Raise `ConfigurationError` with the path for these errors of reading a file."""
    try:
        yield
    except errors as error:
        raise ConfigurationError(f"{path} is damaged ({error!r}); {advice}") from error
