"""
Report a DVCLive experiment to DVC Studio, as `dvc-studio-client` 0.23 does.

An experiment is identified by repository, commit and name. All requests are POSTs to one address:
first `start`; for each update one `data` with metrics and parameters and one with new rows of the
tables; at the end `done`. Studio gives rows no id: if it stores rows without answering, they may be
sent again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asynccb._ground.exceptions import RejectedError
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from asynccb.trackers.dvclive.settings import DVCLiveSettings, relative
from asynccb.trackers.dvclive.tables import Tables

MOST_PLOTS: Final = 200
"""Maximum number of plots of one folder that Studio shows."""
_REQUEST: Final = 20_000_000
_PLOT: Final = 9_000_000
"""Maximum bytes of JSON; Studio accepts 29 MB a request, and 10 MB a plot."""
_MESSAGE: Final = 72
"""Maximum characters of an experiment's message."""
PATIENT: Final = Transport(timeout=20.0, total=60.0)
"""Shorter time limits than usual: during a request nothing is written to the tables."""


class Studio:
    """The reporter of one experiment to DVC Studio; raises the same errors as `Client.request`."""

    def __init__(self, client: Client, settings: DVCLiveSettings, name: str) -> None:
        self._client = client
        self._settings = settings
        self._about = {
            "repo_url": settings.studio_repo,
            "baseline_sha": settings.commit,
            "name": name,
            "client": "dvclive",
        }

    async def start(self) -> None:
        """Report that the experiment begins; repeating the call is harmless."""
        settings, more = self._settings, {}
        if settings.exp_message:
            more["message"] = settings.exp_message[:_MESSAGE]
        if settings.dvc and settings.git:
            subdir = relative(settings.dvc, settings.git)
            more |= {} if subdir == "." else {"subdir": subdir}
        await self._post("start", more)

    async def sum_up(self, step: int, latest: Any, params: Mapping[str, Any] | None) -> None:
        """Send the last values, and the parameters."""
        folder = Path(self._settings.dir)
        more = {"step": step, "metrics": {self._named(folder / "metrics.json"): {"data": latest}}}
        if params:
            more["params"] = {self._named(folder / "params.yaml"): params}
        await self._post("data", more)

    async def add_rows(self, step: int, rows: Mapping[Path, list[dict[str, Any]]]) -> None:
        """Send rows of tables; `rows` are by file."""
        plots = {self._named(file): {"data": some} for file, some in rows.items()}
        await self._post("data", {"step": step, "plots": plots})

    async def end(self, revision: str | None) -> None:
        """Report that the experiment is over, and the commit that it was saved as."""
        await self._post("done", {} if revision is None else {"experiment_rev": revision})

    def _named(self, file: Path) -> str:
        return relative(file, self._settings.root)

    async def _post(self, kind: str, more: Mapping[str, Any]) -> None:
        assert self._settings.studio is not None
        reply = await self._client.request(
            "POST",
            self._settings.studio.rpartition("/")[2],
            content=json.dumps({"type": kind, **self._about, **more}).encode(),
            headers={"Content-Type": "application/json"},
        )
        if reply.status != 200:  # the vendor's client accepts only 200 as success
            raise RejectedError(f"{reply.request} was answered with {reply.status}")
        reply.check_no_page()


def next_rows(tables: Tables) -> tuple[dict[Path, list[dict[str, Any]]], dict[str, int]]:
    """Return the rows for the next request, by file, and the offsets after them, by name."""
    rows: dict[Path, list[dict[str, Any]]] = {}
    ends: dict[str, int] = {}
    names = [name for name in list(tables.known)[:MOST_PLOTS] if tables.known[name].lacks]
    for name in names:
        # A row of four bytes, the shortest, grows by this factor in JSON.
        growth = 6 + len(json.dumps(name.rpartition("/")[2])) / 4
        most = int(min(_PLOT, _REQUEST / len(names)) / growth)
        some, ends[name] = tables.unsent(name, most)
        if some:
            rows[tables.path(name)] = some
    return rows, ends
