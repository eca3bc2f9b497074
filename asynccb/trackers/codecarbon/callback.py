"""
CodeCarbon: the energy that a training uses, and the carbon dioxide that it emits.

Promises: the training waits neither for CodeCarbon's detection of the hardware nor for its
measurements, which the companion makes. A measurement is in the table within one interval,
whichever process dies.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio.to_thread

from asynccb._ground.types import Ranks, RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.base import Tracker
from asynccb.trackers.codecarbon.session import Row, Session
from asynccb.trackers.codecarbon.settings import CodeCarbonSettings, resolve
from asynccb.trackers.codecarbon.table import MOMENTS, UNREADABLE, sums_of, write_row
from asynccb.trackers.shared.packages import is_installed, require
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.control import TrainerControl
    from asynccb._state.trainer_state import TrainerState
    from asynccb.arguments.training_arguments import TrainingArguments

logger = logging.getLogger("asynccb")


class CodeCarbonCallback(Tracker):
    """
    Measure a training's energy with the package `codecarbon`, in one process on each node.

    * `country_iso_code` (three letters): the country of the machine. If it is given here, or where
      CodeCarbon reads it (`CODECARBON_COUNTRY_ISO_CODE`, `.codecarbon.config`), or if a cloud's
      provider and region are given there, CodeCarbon makes no network request. Otherwise it asks
      two services for the location, and assumes Canada if neither answers.
    * `output_dir`: the folder of `emissions.csv`, by default the one configured for CodeCarbon, or
      the run's `output_dir`.
    * `measure_power_secs`: seconds between measurements (15).
    * `names` changes nothing here: it logs nothing of what the training logs.

    Everything else is configured as usual for CodeCarbon: `CODECARBON_<KEY>` and the files. Raises
    `ConfigurationError` for a value that cannot work, and if `codecarbon` is not installed (the
    extra `codecarbon`).

    A row of the table contains the consumption of one training from its beginning to its end, and
    grows with every measurement. Measuring begins when the hardware is known, one to three seconds
    after the process has started. If a training ends earlier, it is not measured, and a warning is
    logged. If a companion or a training is restarted, it writes a new row; the rows of a run add
    up.

    Every tracker of the run receives the measurements, too: `codecarbon/emissions` (kg of CO2
    equivalents), `codecarbon/energy_consumed`, `…/cpu_energy`, `…/gpu_energy`, `…/ram_energy` (kWh)
    and `codecarbon/duration` (s), each over all sessions of the run on this machine, and
    `codecarbon/emissions_rate` (kg/s), `…/cpu_power`, `…/gpu_power`, `…/ram_power` (W). On a node
    without other trackers the measurements are in its table alone. A training that is killed has no
    last measurement.
    """

    name: ClassVar[str] = "codecarbon"
    local: bool = True
    ranks: Ranks = "local_zero"
    interval: ClassVar[float] = 0.2
    offers: ClassVar[bool] = True

    def __init__(
        self,
        *,
        country_iso_code: str | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        measure_power_secs: float | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        require("codecarbon", "codecarbon", type(self).__name__)
        self._set_up(in_utf8(resolve(locals(), os.environ), os.environ), measures=True)

    def _set_up(self, settings: CodeCarbonSettings, *, measures: bool) -> None:
        self.settings = settings
        self._measures = measures
        self._sessions: list[str] = []
        self._training = False
        self._session: Session | None = None
        self._earlier: dict[str, float] | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether a `CODECARBON_` variable is set and the package is installed."""
        wanted = any(name.lower().startswith("codecarbon_") for name in environ)
        return wanted and is_installed("codecarbon")

    def describe(self, run: RunDescription) -> None:
        """Accept the run; continue to measure if a companion that died was measuring."""
        super().describe(run)
        if self._training and self._session is None:
            self._begin()

    async def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to detect the hardware."""
        self._prepare()

    async def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure."""
        if not self._training:
            self._begin()

    async def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure for the last time."""
        await self._end()

    async def flush(self) -> None:
        """Reject rows that could not be written; the others are written as they are measured."""
        while self._unwritten:
            row, why = self._unwritten.popleft()
            self.reject("a row of its table", why, record=row)

    async def finish(self, status: RunStatus) -> None:
        """Measure for the last time, if the training ended without its event."""
        await self._end()
        await self.flush()

    async def close(self) -> None:
        """Abandon the running measurement."""
        if self._session is not None:
            self._session.leave()

    def state(self) -> dict[str, Any]:
        """Return the settings, and as attributes the sessions; the last one may be running."""
        return {
            "args": {**asdict(self.settings), "names": self.names},
            "attributes": {"sessions": list(self._sessions), "training": self._training},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker for an old journal: its training is over, so nothing is measured."""
        tracker = cls.__new__(cls)
        settings = dict(state["args"])
        tracker.choose_names(settings.pop("names", "grouped"))
        tracker._set_up(CodeCarbonSettings(**settings), measures=False)
        tracker.restore(state["attributes"])
        return tracker

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the sessions."""
        self._sessions = list(attributes["sessions"])
        self._training = attributes["training"]

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the sums of the interrupted training."""
        self._sessions = list(attributes["sessions"])
        return True

    # -- sessions ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._session is None and self._measures:
            # The same id again if a companion died before this was stored.
            name = f"{self.run.host} {self.run.training} {len(self._sessions)}"
            run_id = str(uuid.uuid5(uuid.UUID(self.run.key), name))
            self._session = Session(self.settings, self._path.parent, run_id, self._take)

    def _begin(self) -> None:
        self._training = True
        self._prepare()
        if self._session is not None:
            self._earlier = None
            self._sessions.append(self._session.run_id)
            self.address = str(self._path) if self.settings.csv else None
            self._session.begin()

    async def _end(self) -> None:
        self._training = False
        session, self._session = self._session, None
        if session is None or session.run_id not in self._sessions:
            if session is not None:
                session.leave()  # no training has begun
            return
        measured = await anyio.to_thread.run_sync(session.end, abandon_on_cancel=True)
        if session.error is not None:
            logger.warning("CodeCarbon could not measure: %r", session.error)
        elif not measured:
            logger.warning(
                "CodeCarbon has measured nothing: the training was over before it had found out "
                "what the hardware is"
            )

    @cached_property
    def _path(self) -> Path:
        folder = self.settings.output_dir
        if folder is None:
            folder = self.run.args.to_dict().get("output_dir") or "."
        return Path(self.settings.origin, folder, self.settings.output_file)

    @cached_property
    def _unwritten(self) -> deque[tuple[Row, str]]:
        return deque()

    def _take(self, row: Row) -> None:
        """Write and offer a session's measurements so far; called on CodeCarbon's threads."""
        if self._earlier is None:
            if not self.settings.offline:
                logger.warning(
                    "CodeCarbon takes it that this machine is in %s: nothing says where it is; set "
                    "CODECARBON_COUNTRY_ISO_CODE",
                    row["country_name"],
                )
            before = [run_id for run_id in self._sessions if run_id != row["run_id"]]
            self._earlier = sums_of(self._path, before)
        if self.settings.csv:
            try:
                write_row(self._path, row)
            except UNREADABLE as error:
                self._unwritten.append((row, str(error)))
        sums = {name: value + row[name] for name, value in self._earlier.items()}
        moments = {name: row[name] for name in MOMENTS}
        self.offer({f"codecarbon/{name}": float(v) for name, v in {**sums, **moments}.items()})
