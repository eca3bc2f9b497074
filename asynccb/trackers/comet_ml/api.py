"""
Requests to a Comet server: handshake, batches, facts, assets, heartbeats, and the run's end.

Source: `comet_ml` 3.58, with its batches for metrics and parameters, and REST v2 for the rest.
Promises: requests keep the documented rates; each request may be sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import aiofiles.os
import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.delivery.bodies import FormBody
from asynccb.delivery.client import Client
from asynccb.delivery.rate import Bucket
from asynccb.trackers.comet_ml.access import HINT, open_client
from asynccb.trackers.comet_ml.values import Latest, Metric, Note, Parameter

BATCH: Final = 1000
"""Values in one request, as the vendor's client has them."""
METRIC_RATE: Final = 130.0, 3500.0
"""Values a second, and at once: 11,300 in any minute of the 12,000 that are allowed, so that some
seconds between sending and arriving do no harm."""
PARAMETER_RATE: Final = 100.0, 4000.0
"""Of 10,000 a minute."""
OTHER_RATE: Final = 90.0, 2600.0
"""Requests; of 8,000 a minute."""

_VERSION: Final = "3.58.8"
"""Version of the vendor's client that sends these requests; a server refuses old clients."""
_EXISTS: Final = "90999"
_MIB: Final = 1 << 20


class Experiment(msgspec.Struct, frozen=True):
    """An experiment on the server, and this session of it."""

    key: str
    run_id: str
    project_id: str
    address: str
    largest: float
    """MiB that an asset may have."""


class _Handshake(msgspec.Struct):
    run_id: str = msgspec.field(name="runId")
    project_id: str
    focus: str = msgspec.field(name="focusUrl", default="")
    largest: float = msgspec.field(name="asset_upload_file_size_limit_in_mb", default=100 * 1024)


class Beat(msgspec.Struct):
    """The answer to a heartbeat."""

    milliseconds: float = msgspec.field(name="is_alive_beat_duration_millis", default=10_000)
    """Until the next one."""
    pending_rpcs: bool = False
    """Whether somebody has pressed a button."""


class _Call(msgspec.Struct):
    function: str = msgspec.field(name="functionName", default="")
    is_comets: bool = msgspec.field(name="cometDefined", default=False)


class _Calls(msgspec.Struct):
    calls: list[_Call] = msgspec.field(name="remoteProcedureCalls", default_factory=list)


class _Summary(msgspec.Struct):
    values: list[Latest] = msgspec.field(default_factory=list)


class CometServer:
    """Speak to a server about one experiment."""

    def __init__(self, client: Client, key: str) -> None:
        """Take the client for all but metrics, and the key, which some bodies repeat."""
        self._client = client
        # A limit is one of its own for each kind: what waits for metrics holds up nothing else.
        self._for_metrics = open_client(client.base, key)
        self._key = key
        self._metrics = Bucket(*METRIC_RATE)
        self._parameters = Bucket(*PARAMETER_RATE)
        self.experiment: Experiment | None = None

    async def close(self) -> None:
        """Close the connection that is not the caller's."""
        await self._for_metrics.close()

    # -- the experiment ----------------------------------------------------------------------------

    async def add(self, key: str, project: str | None, workspace: str | None, time: int) -> bool:
        """Make an experiment; return False if it exists already."""
        body = {
            "experimentKey": key,
            "offline": False,
            "projectName": project,
            "teamName": workspace,
            "libVersion": _VERSION,
            "getOrCreateEnabled": False,
        }
        try:
            answer = await self._post("logger/add/run", body, time)
        except RejectedError as error:
            if error.code == _EXISTS:
                return False
            raise AccessError(f"the Comet experiment cannot be made: {error}; {HINT}") from error
        self._adopt(key, answer)
        return True

    async def get(self, key: str, time: int) -> None:
        """Continue an experiment; raise `AccessError` if it does not exist."""
        body = {"previousExperiment": key, "libVersion": _VERSION}
        try:
            answer = await self._post("logger/get/run", body, time)
        except RejectedError as error:
            raise AccessError(f"there is no Comet experiment {key}: {error}; {HINT}") from error
        self._adopt(key, answer)

    def _adopt(self, key: str, answer: Any) -> None:
        try:
            found = msgspec.convert(answer, _Handshake)
        except msgspec.ValidationError as error:
            raise AccessError(f"this is no answer of a Comet server: {error}") from error
        address = found.focus + key
        self.experiment = Experiment(key, found.run_id, found.project_id, address, found.largest)

    async def check(self) -> None:
        """Raise `AccessError` if the experiment is gone."""
        params = {"experimentKey": self._known.key}
        try:
            await self._client.get("api/rest/v2/experiment/metadata", params)
        except RejectedError as error:
            address = self._known.address
            raise AccessError(f"the Comet experiment {address} is gone: {error}") from error

    # -- logging -----------------------------------------------------------------------------------

    async def store_metrics(self, values: Sequence[Metric]) -> None:
        """Send a batch of metrics."""
        await self._metrics.take(len(values))
        await self._batch(self._for_metrics, "metric", values)

    async def latest(self) -> list[Latest]:
        """Return the last value of each metric that the server has, as far as it says so."""
        params = {"experimentKey": self._known.key}
        try:
            answer = await self._client.get("api/rest/v2/experiment/metrics/summary", params)
            return msgspec.convert(answer, _Summary).values
        except (RejectedError, msgspec.ValidationError):
            return []

    async def store_parameters(self, values: Sequence[Parameter]) -> None:
        """Send a batch of parameters."""
        await self._parameters.take(len(values))
        await self._batch(self._client, "parameter", values)

    @property
    def spare_parameters(self) -> int:
        """How many parameters can be sent without a wait for their rate."""
        return self._parameters.spare

    async def store_note(self, note: Note) -> None:
        """Send a single fact; a later one of its name replaces it."""
        await self._write(note.endpoint, note.fields)

    async def add_tags(self, tags: list[str]) -> None:
        """Add tags; existing tags stay."""
        body = {"apiKey": self._key, "experimentKey": self._known.key, "addedTags": tags}
        path = "clientlib/tags/add-tags-to-experiment"
        await self._client.post(path, body, may_be_empty=True)

    async def store_asset(self, kept: Kept, file: KeptFile) -> None:
        """Store a file; sent again, it replaces itself."""
        known = self._known
        size = (await aiofiles.os.stat(file.path)).st_size
        if size > known.largest * _MIB:
            raise RejectedError(f"it has {size} bytes, and the server takes {known.largest} MiB")
        fields = asset_fields(known.key, kept, file)
        params = {name: str(value) for name, value in fields.items()}
        place = {"experimentId": known.key, "projectId": known.project_id, "runId": known.run_id}
        body = FormBody(file.path, "file", "file")
        path = "clientlib/asset/upload"
        reply = await self._client.request("POST", path, content=body, params={**place, **params})
        reply.check_no_page()

    # -- whether it lives --------------------------------------------------------------------------

    async def beat(self, time: int, *, alive: bool) -> Beat:
        """Send a heartbeat, or, as the last request of all, the end of heartbeats."""
        known = self._known
        body = {
            "runId": known.run_id,
            "experimentKey": known.key,
            "projectId": known.project_id,
            "is_alive": alive,
            "offline": False,
        }
        answer = await self._post("status-report/update", body, time)
        try:
            return msgspec.convert(answer, Beat)
        except msgspec.ValidationError:
            return Beat()

    async def end(self, time: int, error: str | None) -> None:
        """Send the end of the run, and the error, if there was one."""
        if error is not None:
            status = {"isAlive": True, "error": error, "hasCrashed": True}
            await self._write("update-status", status)
        await self.beat(time, alive=False)

    async def is_stopped(self) -> bool:
        """Tell whether somebody has asked the experiment to stop; asked once each."""
        params = {"experimentKey": self._known.key}
        answer = await self._client.get("clientlib/rpc/get-pending-rpcs", params)
        try:
            calls = msgspec.convert(answer, _Calls).calls
        except msgspec.ValidationError:
            return False
        return any(call.is_comets and call.function == "stop" for call in calls)

    # -- requests ----------------------------------------------------------------------------------

    @property
    def _known(self) -> Experiment:
        assert self.experiment is not None  # or the run has not begun
        return self.experiment

    async def _post(self, path: str, body: dict[str, Any], time: int) -> Any:
        body = {"apiKey": self._key, "local_timestamp": time, **body}
        return await self._client.post(f"clientlib/{path}", body)

    async def _write(self, endpoint: str, fields: dict[str, Any]) -> None:
        body = {"experimentKey": self._known.key, **fields}
        path = f"api/rest/v2/write/experiment/{endpoint}"
        await self._client.post(path, body, may_be_empty=True)

    async def _batch(self, client: Client, kind: str, values: Sequence[msgspec.Struct]) -> None:
        body = {"experimentKey": self._known.key, "values": values}
        path = f"clientlib/batch/logger/experiment/{kind}"
        await client.post(path, body, compress=True, may_be_empty=True)  # undocumented answer


def asset_fields(key: str, kept: Kept, file: KeptFile) -> dict[str, Any]:
    """Return the fields of a file; its id is the same however often it is sent."""
    name = f"{kept.name}/{file.name}"
    told = f"{key}\n{name}\n{kept.step}".encode()
    fields = {
        "assetId": hashlib.sha256(told).hexdigest()[:32],
        "fileName": name,
        "overwrite": True,
        "step": kept.step,
    }
    extension = PurePosixPath(name).suffix.removeprefix(".")
    return {**fields, "extension": extension} if extension else fields
