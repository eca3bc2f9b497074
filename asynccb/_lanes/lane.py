"""
A lane: it calls one callback's hooks in order, contains their errors, and counts.

Promises: hooks of one lane run one after another in the order of emission (`concurrency` lifts
that). No error of a hook leaves the lane, not even `SystemExit`. Each failure is counted, and
logged once per cause. A tracker's server may be away for any time.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import anyio

from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, HookReturnError, TransientError
from asynccb._ground.types import RunStatus
from asynccb._lanes.containment import is_to_end, take_back_cancellation
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.mailbox import Letter
from asynccb._staging.staged import Staged
from asynccb._state.control import (
    NO_OPINION,
    Decision,
    FrozenControl,
    PrivateControl,
    check_undecided,
    is_control,
)
from asynccb._state.run_description import RunDescription
from asynccb.callbacks.base import AsyncHook, read_options
from asynccb.callbacks.decides import terms_of
from asynccb.callbacks.tracking import Tracking
from asynccb.delivery.retry import until_acknowledged

logger = logging.getLogger("asynccb")

_LANDING: Final = 0.002
"""Seconds between two looks whether a value from a device has landed."""
_FRAMES: Final = (Event.TRAIN_BEGIN, Event.TRAIN_END)
"""Events that a tracker needs at any step."""
_CAUSES: Final = 100
"""Distinct causes that a lane logs; later ones are only counted."""


@runtime_checkable
class Delivers(Protocol):
    """The methods of a tracker that a lane calls beside hooks; see `trackers/base.py`."""

    interval: float
    beat: float | None
    address: str | None
    rejected: int
    time: int

    def describe(self, run: RunDescription) -> None: ...
    async def flush(self) -> None: ...
    async def heartbeat(self) -> None: ...
    def take_refusals(self) -> Iterable[Any]: ...
    def reject(self, what: str, why: str, *, cause: str | None, record: Any) -> None: ...
    async def finish(self, status: RunStatus) -> None: ...
    async def close(self) -> None: ...


@dataclass(eq=False)
class Lane:
    """The calls of one callback's async hooks, with their errors contained."""

    name: str
    callback: Any
    hooks: dict[Event, AsyncHook]
    fault: Callable[[BaseException], None]
    """Called with an error that is to be raised on the training thread."""
    counts: LaneCounts = field(default_factory=LaneCounts)
    answer: Callable[[str, int, Decision | None], None] = field(
        default=lambda name, ticket, decision: None, kw_only=True
    )
    """Called with a hook's decision for a ticket; None if the hook was not called."""
    aside: Callable[[Iterable[Any]], Awaitable[None]] | None = field(default=None, kw_only=True)
    """Called with records that can never be delivered; None without a run folder."""
    _causes: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.options = read_options(self.callback)
        self.deciding = {event for event, hook in self.hooks.items() if terms_of(hook)}
        self._returned = 0  # hook calls that are not acknowledged yet
        self._beaten = math.inf  # monotonic seconds; not due until the first flush, then at once
        self.tracker: Delivers | None = None
        self._largest_step = math.inf
        if isinstance(self.callback, Tracking) and isinstance(self.callback, Delivers):
            self.tracker = self.callback
            self._largest_step = self.callback.largest_step or math.inf

    @property
    def is_remote(self) -> bool:
        """Whether the callback sends to a server, which `ASYNCCB_OFFLINE` forbids."""
        return self.tracker is not None and not getattr(self.tracker, "local", False)

    def waits_for_sync(self, offline: bool) -> bool:
        """Return whether nothing is sent before a sync; `offline` forbids all servers."""
        return self.is_remote and (offline or getattr(self.tracker, "offline", False))

    async def call(self, letter: Letter) -> None:
        """Call the hook for one event; an error of the hook is contained."""
        hook = self.hooks.get(letter.event)
        if hook is None:
            return
        decision = None
        if self.counts.disabled:
            self.counts.dropped += 1
        else:
            decision = await self._call(hook, letter)
        if letter.ticket and letter.event in self.deciding:
            self.answer(self.name, letter.ticket, decision)

    async def _call(self, hook: AsyncHook, letter: Letter) -> Decision:
        """Call the hook and return its decision; no opinion if the hook fails."""
        may_decide = letter.event in self.deciding
        kind = PrivateControl if may_decide else FrozenControl
        control = kind(letter.flags)
        keywords = {
            key: await arrived(value) if type(value) is dict else value
            for key, value in letter.keywords.items()
        }
        if self.tracker is not None:
            self.tracker.time = letter.time
            step = letter.state.global_step
            if step > self._largest_step and letter.event not in _FRAMES:
                self._reject_step(step, letter.event, keywords.get("logs"))
                return NO_OPINION
        begin = time.monotonic()
        decision = NO_OPINION
        odd: HookReturnError | None = None

        async def run() -> None:
            nonlocal decision, odd
            returned: Any = await hook(letter.args, letter.state, control, **keywords)
            if not (returned is None or is_control(returned)):
                odd = _nonsense(self.name, letter.event, returned)
            elif may_decide:
                decision = Decision.of(letter.flags, returned or control)
            else:
                check_undecided(letter.flags, returned)

        timeout = self.options.timeout
        if await self._contain(letter.event, run, timeout):
            self._returned += 1
            if self.tracker is None:
                self._count_delivered()
            if odd is not None:
                self._complain(letter.event, odd)
        elif timeout is not None and time.monotonic() - begin >= timeout:
            self.counts.timed_out += 1
        return decision

    async def hear(
        self, about: dict[str, Any], values: dict[Any, Any], step: int, when: int
    ) -> None:
        """Give a tracker values of its training side; `about` names the tracker and values."""
        if about["lane"] == self.name and self.tracker is not None:
            told = self.callback.told
            self.tracker.time = when
            if step > self._largest_step:
                self._reject_step(step, about["what"], None)
                return
            await self._contain("told", lambda: told(about["what"], values, step), None)

    def _reject_step(self, step: int, what: str, values: Any) -> None:
        assert self.tracker is not None
        self.tracker.reject(
            f"{what} of step {step}",
            f"its steps end at {self._largest_step}",
            cause="step",
            record={"step": step, "values": values},
        )

    async def flush(self) -> None:
        """Deliver everything that the hooks have gathered, however long the server is away."""
        tracker = self.tracker
        if tracker is None or self.counts.disabled:
            return
        if await self._deliver("flush", tracker.flush):
            if self._beaten == math.inf:
                self._beaten = -math.inf
            self._count_delivered()

    async def beat(self) -> None:
        """Tell the tracker's server that the run lives, if it is time to; one attempt a beat."""
        tracker = self.tracker
        if tracker is None or tracker.beat is None or self.counts.disabled:
            return
        now = time.monotonic()
        if now - self._beaten < tracker.beat:
            return
        self._beaten = now

        async def run() -> None:
            try:
                await tracker.heartbeat()
            except TransientError as error:
                self._retried(error)

        await self._contain("heartbeat", run, None)

    async def finish(self, status: RunStatus, when: int) -> None:
        """Tell the tracker's server how the run ended; `when` in Unix nanoseconds."""
        tracker = self.tracker
        if tracker is not None and not self.counts.disabled:
            tracker.time = when
            await self._deliver("finish", lambda: tracker.finish(status))

    async def close(self) -> None:
        """Have the tracker close its connections."""
        if self.tracker is not None:
            await self._contain("close", self.tracker.close, 2.0)

    def _count_delivered(self) -> None:
        self.counts.delivered += self._returned
        self._returned = 0

    async def _deliver(self, what: str, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Call `attempt` until it succeeds; if it never will, the lane ends."""

        async def run() -> None:
            await until_acknowledged(attempt, self._retried)

        delivered = await self._contain(what, run, None)
        await self._take_stock()
        if not delivered and not self.counts.disabled:
            # Going on would move the cursor past records that were not delivered.
            self.counts.disabled = True
            logger.error("%s gives up after the error above; its journal keeps the data", self.name)
        return delivered

    async def _take_stock(self) -> None:
        """Count the records that the tracker has rejected, and set them aside."""
        assert self.tracker is not None
        self.counts.rejected = self.tracker.rejected
        self.counts.address = self.tracker.address
        refusals = self.tracker.take_refusals()
        if self.aside is not None:
            await self.aside(refusals)

    async def _contain(
        self, what: str, run: Callable[[], Awaitable[None]], timeout: float | None
    ) -> bool:
        """Return whether `run` returned; its error, if any, is counted and logged."""
        error: BaseException | None = None
        try:
            if timeout is None:  # always for trackers, since a scope would cost 5 us an event
                await run()
            else:
                with anyio.move_on_after(timeout) as scope:
                    await run()
                if scope.cancelled_caught:
                    error = TimeoutError(f"it took more than {timeout} s and was cancelled")
        except BaseException as raised:
            # A hook may raise anything, SystemExit and a cancellation of its own included.
            if is_to_end():
                raise
            error = raised
        await take_back_cancellation()
        if isinstance(error, AccessError):
            self._give_up(error)
        elif error is not None:
            self._failed(what, error)
        return error is None

    async def _survive(self, serve: Callable[[], Awaitable[None]]) -> bool:
        """Serve this lane; tell whether that came to its end. If it fails, the lane ends alone."""
        try:
            await serve()
        except BaseException as error:
            if is_to_end():
                raise
            self.counts.failed += 1
            self.counts.disabled = True
            logger.error("%s is not served any more, after this error", self.name, exc_info=error)
            return False
        return True

    def _failed(self, what: str, error: BaseException) -> None:
        self.counts.failed += 1
        self._complain(what, error)
        if self.options.on_error == "disable":
            self.counts.disabled = True
            logger.warning("%s is disabled after an error in %s", self.name, what)
        elif self.options.on_error == "raise":
            self.fault(error)

    def _give_up(self, error: AccessError) -> None:
        self.counts.failed += 1
        self.counts.disabled = True
        logger.error("%s gives up: %s. The journal keeps its data", self.name, error)

    def _retried(self, error: TransientError) -> None:
        self.counts.retried += 1
        self._complain("delivery", error, "; it is tried again until it succeeds")

    def _complain(self, what: str, error: BaseException, addition: str = "") -> None:
        """Log an error the first time that its cause is seen."""
        cause = (type(error).__name__, _cause(error) or what)
        if cause in self._causes or len(self._causes) >= _CAUSES:
            return
        self._causes.add(cause)
        expected = isinstance(error, TransientError | HookReturnError | TimeoutError)
        logger.warning(
            "%s: %s failed: %s: %s%s (said once; statistics() counts it)",
            self.name,
            what,
            type(error).__name__,
            error,
            addition,
            exc_info=None if expected else error,
        )


def _cause(error: BaseException) -> str | None:
    """Return a text that errors of one kind share: their message, or the place of the raise."""
    if isinstance(error, TransientError) and error.cause is not None:
        return error.cause
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _nonsense(name: str, event: Event, returned: object) -> HookReturnError:
    return HookReturnError(
        f"{name}.{event} returned {type(returned).__name__}; a hook returns None, or a control"
    )


async def arrived(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the values, with the numbers of all values that were on their way."""
    copy = dict(values)
    for key, value in values.items():
        if type(value) is Staged:
            while not value.look():
                await anyio.sleep(_LANDING)
            copy[key] = value.value()
    return copy
