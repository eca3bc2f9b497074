"""
TensorBoard: event files in a directory, which `tensorboard --logdir` shows.

Promises: each log is in the files exactly once, whichever process died in between. A training that
was resumed from a checkpoint is shown as one curve. Needs no torch, and writes nothing in the
training process.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from asynccb._ground.plain import clean, flatten
from asynccb._ground.types import RunStatus
from asynccb.trackers.base import Tracker
from asynccb.trackers.names import rewrite_logs, run_config, scalars
from asynccb.trackers.shared.utf8 import path_in_utf8
from asynccb.trackers.tensorboard.event_file import file_name
from asynccb.trackers.tensorboard.outbox import HIDE_NOTHING, EventWriter
from asynccb.trackers.tensorboard.settings import default_directory, given_directory

if TYPE_CHECKING:
    from asynccb._state.control import TrainerControl
    from asynccb._state.trainer_state import TrainerState
    from asynccb.arguments.training_arguments import TrainingArguments

logger = logging.getLogger("asynccb")


@dataclass(frozen=True)
class _Position:
    """The place of the next record, in plain values, because it is stored with the cursor."""

    origin: str
    """Working directory of the training process, from which relative directories count."""
    root: str | None = None
    """Directory of the run; the directories of a search's trials are below it."""
    file: str | None = None
    offset: int = 0
    """Bytes of `file` that are acknowledged."""
    count: int = 0
    """Number of files begun so far."""
    step: int = 0
    """Highest step in `file`."""
    trained: bool = False
    """Whether a training has begun in `file`."""
    ended: bool = False
    """Whether the run's end is in `file`."""


class TensorBoardCallback(Tracker):
    """
    Write scalars, texts and hyper-parameters to TensorBoard event files.

    `logging_dir` is the run's directory; by default that of `TENSORBOARD_LOGGING_DIR`, else
    `<output_dir>/runs/<date>_<host>`. In a hyper-parameter search the trial's name is appended.
    `tb_writer` is accepted for code written for transformers. A live `SummaryWriter` cannot move to
    another process, so only its `log_dir` is used; images that it writes appear beside our scalars.
    Raises `ConfigurationError` if both are given, or if the directory is not valid.

    `eval_x` is shown as `eval/x`, `test_x` as `test/x`, any other `x` as `train/x`, and strings as
    texts. Other values are dropped, with one warning per name. Values are 32-bit floats, as
    everywhere in TensorBoard. All values of a log share one record.

    A training resumed at step s begins a new file in the directory of the interrupted training,
    unless its settings name another directory, and the records after step s there are hidden. If
    steps go back within a training, the records of the later steps are hidden, too. A run that
    begins at step 0 hides nothing of another run in its directory. The hyper-parameter page shows
    the status of the run's first end: TensorBoard never reads a second one.
    """

    name: ClassVar[str] = "tensorboard"
    local: bool = True
    rewinds: ClassVar[bool] = True

    def __init__(
        self, tb_writer: Any = None, *, logging_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self._logging_dir = given_directory(tb_writer, logging_dir)
        origin = path_in_utf8("the working directory", os.getcwd(), os.environ)
        self._position = self._acknowledged = _Position(origin=origin)
        self._writer = EventWriter()

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return True: the tracker needs only a directory, and has a default for it."""
        return True

    async def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a file, unless a log before the training already did; add the configuration."""
        from asynccb.trackers.tensorboard import values as records

        step = state.global_step
        if self._needs_file(state):
            self._begin_file(state, start=self._first_hidden(state))
        self._position = replace(self._position, trained=True, step=step)
        self._add(records.values(self._seconds, step, {}, self._texts()))
        hparams = flatten(run_config(self.run))
        self._add(records.session_start(self._seconds, step, hparams))

    async def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the logs, all in one record."""
        self._add_values(state, logs or {})

    async def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a prediction's metrics, all in one record."""
        self._add_values(state, metrics or {})

    async def flush(self) -> None:
        """Write the outbox, one write per file."""
        await self._writer.flush()
        writer = self._writer
        self._position = replace(self._position, file=writer.file, offset=writer.offset)
        self._acknowledged = self._position

    async def finish(self, status: RunStatus) -> None:
        """Write how the run ended; for a run without a single record, no file is made."""
        from asynccb.trackers.tensorboard import values as records

        if self._position.trained and not self._position.ended:
            self._add(records.session_end(self._seconds, self._position.step, status))
            self._position = replace(self._position, ended=True)
        await self.flush()

    def state(self) -> dict[str, Any]:
        """Return the directory, and as attributes the end of the last acknowledged record."""
        return {
            "args": {"logging_dir": self._logging_dir},
            "attributes": asdict(self._acknowledged),
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Continue after the last acknowledged record; later bytes of the file are overwritten."""
        position = _Position(**attributes)
        self._position = self._acknowledged = position
        self._writer = EventWriter(position.file, position.offset)
        if position.file is not None:
            self.address = str(Path(position.file).parent)

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue in the directory of the interrupted run, unless the settings name another."""
        if self._logging_dir is not None and attributes["root"] not in (None, self._logging_dir):
            return False
        return super().resume(attributes)

    @property
    def _seconds(self) -> float:
        return self.time / 1e9

    def _add_values(self, state: TrainerState, logs: Mapping[str, Any]) -> None:
        from asynccb.trackers.tensorboard import values as records

        named = rewrite_logs(logs)
        texts = {name: value for name, value in named.items() if isinstance(value, str)}
        numbers, others = scalars(named)
        for name in others:
            if name not in texts:
                why = "and TensorBoard takes numbers and strings here"
                self.reject(repr(name), f"it is a {type(named[name]).__name__}, {why}")
        if not numbers and not texts:
            return
        step = state.global_step
        if self._position.file is None:
            self._begin_file(state, start=HIDE_NOTHING)
        elif step < self._position.step:
            self._go_back(state)
        self._position = replace(self._position, step=step)
        self._add(records.values(self._seconds, step, numbers, texts))

    def _go_back(self, state: TrainerState) -> None:
        """Begin a file when steps decrease: within one file, readers would drop either part."""
        logger.warning(
            "TensorBoard: steps went back from %d to %d; what was logged from step %d on is hidden",
            self._position.step,
            state.global_step,
            state.global_step,
        )
        trained = self._position.trained
        self._begin_file(state, start=state.global_step)
        self._position = replace(self._position, trained=trained)

    def _needs_file(self, state: TrainerState) -> bool:
        """Return whether a training that begins now needs a new file."""
        position = self._position
        if position.file is None or position.trained or state.global_step > 0:
            return True
        return position.step > 0 or Path(position.file).parent != self._directory(state)

    def _first_hidden(self, state: TrainerState) -> int:
        """Return the first step of the directory's records that a training beginning now hides."""
        if state.global_step > 0:
            # That step was logged before its checkpoint was saved: only later steps are hidden.
            return state.global_step + 1
        file = self._position.file
        starts_anew = file is not None and Path(file).parent == self._directory(state)
        # Other records in the directory may belong to another run, which may still be going on.
        return 0 if starts_anew else HIDE_NOTHING

    def _begin_file(self, state: TrainerState, start: int) -> None:
        count, root, directory = self._position.count, self._root(), self._directory(state)
        name = file_name(self.time, self.run.host, self.run.key, count)
        self._position = _Position(
            origin=self._position.origin, root=root, file=str(directory / name), count=count + 1
        )
        self._writer.begin(str(directory / name), start, self._seconds)
        self.address = str(directory)

    def _add(self, record: bytes) -> None:
        self._writer.add(record, self._seconds)

    def _root(self) -> str:
        """Return the run's directory, absolute; the default one is named after the run's start."""
        if self._position.root is not None:
            return self._position.root
        if self._logging_dir is not None:
            return self._logging_dir
        return default_directory(self.run, self._position.origin)

    def _directory(self, state: TrainerState) -> Path:
        trial = state.trial_name if state.is_hyper_param_search else None
        return Path(self._root(), trial or "")

    def _texts(self) -> dict[str, str]:
        texts = {"args": _json(self.run.args.to_dict())}
        if self.run.model is not None and self.run.model.config:
            texts["model_config"] = _json(self.run.model.config)
        return texts


def _json(config: Mapping[str, Any]) -> str:
    return json.dumps(clean(config), indent=2, ensure_ascii=False, allow_nan=False)
