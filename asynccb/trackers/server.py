"""
What trackers have in common that talk to a server over HTTP.

Promises: one client, made when there is something to send; the run exists on the server before
anything is sent to it, however often that was tried, and whether metrics or files come first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import anyio
import anyio.to_thread

from asynccb._ground.exceptions import ConfigurationError, FaultError, RejectedError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.delivery.client import Client
from asynccb.trackers.base import Tracker

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_PATIENCE: Final = 10
"""Attempts, about two minutes of them, at a file over which the server fails, and only that."""


@dataclass
class _Doubt:
    """Count what speaks against a file."""

    failures: int = 0
    others_passed: bool = False


class ServerTracker(Tracker):
    """
    Gather records in queues and send them through one client.

    A subclass has `settings_type`, a frozen dataclass of plain values without credentials; its
    constructor resolves them and calls `set_up`.
    """

    settings_type: ClassVar[type[DataclassInstance]]

    _client: Client | None = None
    _begun: bool = False
    _opening: anyio.Lock | None = None
    _stopping: bool = False

    def set_up(self, settings: Any) -> None:
        """Take the settings and make empty queues; called for a new tracker and a restored one."""
        self.settings = settings

    async def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue what was logged."""
        self.queue(logs or {}, state)

    async def on_predict(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue a prediction's metrics, which come as `test_*`."""
        self.queue_prediction(metrics or {}, state)

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue what was logged."""
        raise NotImplementedError

    def queue_prediction(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a prediction's metrics; as what is logged, unless the tracker has another way."""
        self.queue(values, state)

    def connect(self) -> Client:
        """Look up the credentials and make the client; called once, in a worker thread."""
        raise NotImplementedError

    async def begin(self, client: Client) -> None:
        """
        Find or create the run on the server, and set `address`.

        Called before anything is sent, until it has returned once in this process. An answer may
        have been lost: what is created carries `run.key`, and is looked for first.
        """
        raise NotImplementedError

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        raise NotImplementedError

    async def send(self, client: Client) -> None:
        """Send all that is queued; after a failure, called again for the rest."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """Return ids, offsets and counters as they are after all that was queued is sent."""
        raise NotImplementedError

    async def ready(self) -> Client:
        """Return the client of a run that has begun."""
        if self._opening is None:
            self._opening = anyio.Lock()
        async with self._opening:  # metrics and files may come at once
            if self._client is None:
                self._client = await anyio.to_thread.run_sync(self.connect)
            if not self._begun:
                await self.begin(self._client)
                self._begun = True
            return self._client

    async def flush(self) -> None:
        """Send what is queued; the first time, connect and begin the run."""
        if self.pending:
            await self.send(await self.ready())

    def stop_training(self, who: str) -> None:
        """Ask the training to stop, because somebody has pressed a button at a server; once."""
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
        Store the files one by one; those that are refused, or cannot be read, are rejected.

        So is one over which the server fails again and again, where it takes others; a server that
        takes none is waited for.
        """
        client = await self.ready()
        failed: list[tuple[KeptFile, FaultError]] = []
        passed = False
        for file in kept.pending():
            try:
                await self.upload_file(client, kept, file)
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

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store one file; a tracker that stores folders as a whole has an `upload` of its own."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    def state(self) -> dict[str, Any]:
        """Return the resolved settings, and the attributes."""
        return {"args": asdict(self.settings), "attributes": self.attributes()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker from resolved settings; the environment may be another one by now."""
        tracker = cls.__new__(cls)
        tracker.set_up(cls.settings_type(**state["args"]))
        tracker.restore(state["attributes"])
        return tracker


def _cause(error: Exception) -> str | None:
    if isinstance(error, OSError):
        return f"errno {error.errno}"
    return error.cause if isinstance(error, FaultError | RejectedError) else None
