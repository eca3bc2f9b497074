"""
The common part of trackers that send to a server, or to what takes a server's place.

Promises: a tracker has one connection, made when there is something to send. The run exists on the
server before anything is sent to it, however many attempts that takes, and whether metrics or files
come first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

import anyio
import anyio.to_thread

from asynccb._ground.exceptions import ConfigurationError, FaultError, RejectedError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.trackers.base import Tracker

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_PATIENCE: Final = 10
"""Attempts (about two minutes) at a file over which the server fails while it accepts others."""


@dataclass
class _Doubt:
    """The evidence against a file: the failures, and whether the server accepted others."""

    failures: int = 0
    others_passed: bool = False


class Connection(Protocol):
    """What a tracker sends through; for most trackers, a `Client`."""

    async def close(self) -> None:
        """Close the connection."""


C = TypeVar("C", bound=Connection)


class ServerTracker(Tracker, Generic[C]):
    """
    Gather records in queues and send them through one connection.

    A subclass defines `settings_type`, a frozen dataclass of plain values without credentials. Its
    constructor resolves the settings and calls `set_up`.
    """

    settings_type: ClassVar[type[DataclassInstance]]

    _connection: C | None = None
    _begun: bool = False
    _opening: anyio.Lock | None = None
    _stopping: bool = False

    def set_up(self, settings: Any) -> None:
        """Accept the settings and make empty queues; called for new and for restored trackers."""
        self.settings = settings

    async def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue the logged values."""
        self.queue(logs or {}, state)

    async def on_predict(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue a prediction's metrics, whose names are `test_*`."""
        self.queue_prediction(metrics or {}, state)

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue logged values."""
        raise NotImplementedError

    def queue_prediction(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a prediction's metrics; like logged values, unless the tracker overrides this."""
        self.queue(values, state)

    def connect(self) -> C:
        """
        Look up the credentials and make the connection; called in a worker thread.

        After a failure, called again.
        """
        raise NotImplementedError

    async def begin(self, connection: C) -> None:
        """
        Find or create the run on the server, and set `address`.

        Called before anything is sent, until it has returned once in this process. The answer to an
        earlier attempt may have been lost: mark the run that you create with `run.key`, and search
        for that key first.
        """
        raise NotImplementedError

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        raise NotImplementedError

    async def send(self, connection: C) -> None:
        """Send everything that is queued; after a failure, called again for the rest."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """Return ids, offsets and counters as they are once everything queued has been sent."""
        raise NotImplementedError

    async def ready(self) -> C:
        """Return the connection of a run that has begun."""
        if self._opening is None:
            self._opening = anyio.Lock()
        async with self._opening:  # metrics and files may arrive at the same time
            if self._connection is None:
                self._connection = await anyio.to_thread.run_sync(self.connect)
            if not self._begun:
                await self.begin(self._connection)
                self._begun = True
            return self._connection

    async def flush(self) -> None:
        """Send the queued records; the first time, connect and begin the run."""
        if self.pending:
            await self.send(await self.ready())

    def stop_training(self, who: str) -> None:
        """Ask the training to stop, once, because somebody asked for it on the server's pages."""
        if self._stopping:
            return
        self._stopping = True
        logger.warning("%s asks the run %s to stop; it does at the next step", who, self.address)
        try:
            self.request(should_training_stop=True)
        except ConfigurationError:
            logger.info("the training is not there any more to be stopped")

    async def upload(self, kept: Kept) -> None:
        """
        Store the files one by one, and reject each file that is refused or cannot be read.

        A file over which the server fails again and again is rejected, too, if the server accepts
        other files. If it accepts none, the upload is retried until the server recovers.
        """
        connection = await self.ready()
        failed: list[tuple[KeptFile, FaultError]] = []
        passed = False
        for file in kept.pending():
            try:
                await self.upload_file(connection, kept, file)
                passed = True
            except FaultError as error:
                if error.retry_after is not None:
                    raise
                failed.append((file, error))
                continue
            except (OSError, RejectedError) as error:
                self._reject_file(kept, file, error)
            await kept.stored(file)
        for file, fault in failed:
            doubt = self._doubts.setdefault(f"{kept.name}/{file.name}", _Doubt())
            doubt.failures += 1
            doubt.others_passed |= passed
            if not doubt.others_passed or doubt.failures < _PATIENCE:
                raise fault
            self._reject_file(kept, file, fault)
            await kept.stored(file)

    def _reject_file(self, kept: Kept, file: KeptFile, error: Exception) -> None:
        self.reject(f"the file {kept.name}/{file.name}", str(error), cause=_cause(error))

    @cached_property
    def _doubts(self) -> dict[str, _Doubt]:
        return {}

    async def upload_file(self, connection: C, kept: Kept, file: KeptFile) -> None:
        """Store one file; a tracker that stores folders as a whole overrides `upload` instead."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    def state(self) -> dict[str, Any]:
        """Return the resolved settings, and the attributes."""
        args = {**asdict(self.settings), "names": self.names}
        return {"args": args, "attributes": self.attributes()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker from resolved settings; the environment may have changed since."""
        tracker = cls.__new__(cls)
        settings = dict(state["args"])
        tracker.choose_names(settings.pop("names", "grouped"))  # journals of old have no choice
        tracker.set_up(cls.settings_type(**settings))
        tracker.restore(state["attributes"])
        return tracker


def _cause(error: Exception) -> str | None:
    if isinstance(error, OSError):
        return f"errno {error.errno}"
    return error.cause if isinstance(error, FaultError | RejectedError) else None
