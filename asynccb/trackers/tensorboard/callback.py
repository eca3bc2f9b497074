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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from asynccb._ground.plain import clean, flatten
from asynccb._ground.types import RunStatus
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.trackers.base import Tracker
from asynccb.trackers.names import run_config, scalars
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.utf8 import path_in_utf8
from asynccb.trackers.tensorboard.event_file import file_name
from asynccb.trackers.tensorboard.opening import BESIDE, RUN, TRAINING, Claim, writer_of
from asynccb.trackers.tensorboard.outbox import EventWriter
from asynccb.trackers.tensorboard.settings import default_directory, given_directory
from asynccb.trackers.tensorboard.tags import ARGUMENTS, MODEL, scalar_tag, text_tag

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
    base: str | None = None
    """Directory of the run, or of the trial, as it is wished for; another run may be in it."""
    home: str | None = None
    """Directory of the first training there; those of further trainings are below it."""
    file: str | None = None
    offset: int = 0
    """Bytes of `file` that are acknowledged."""
    count: int = 0
    """Number of files begun so far."""
    step: int = 0
    """Highest step in `file`."""
    logged: bool = False
    """Whether `file` has more than a configuration."""
    trained: bool = False
    """Whether a training has begun in `file`."""
    over: bool = False
    """Whether that training has ended."""
    ended: bool = False
    """Whether the run's end is in `file`."""

    @classmethod
    def stored(cls, attributes: Mapping[str, Any]) -> _Position:
        """Return a position; those of earlier versions lack `base`, `home`, `logged`, `over`."""
        position = cls(**attributes)
        if position.file is None or "home" in attributes:
            return position
        directory = str(Path(position.file).parent)
        return replace(position, base=directory, home=directory, logged=True)


class TensorBoardCallback(Tracker):
    """
    Write scalars, texts and hyper-parameters to TensorBoard event files.

    `logging_dir` is the run's directory; by default that of `TENSORBOARD_LOGGING_DIR`, else
    `<output_dir>/runs/<date>_<host>`. In a hyper-parameter search the trial's name is appended.
    `tb_writer` is accepted for code written for transformers. A live `SummaryWriter` cannot move to
    another process, so only its `log_dir` is used; images that it writes appear beside our scalars.
    Raises `ConfigurationError` if both are given, or if the directory is not valid.

    `eval_x` is shown as `eval/x`, `test_x` as `test/x`, any other `x` as `train/x`, and strings as
    texts; with `names="given"`, all are shown under the names that were logged. Other values are
    dropped, with one warning per name. Values are 32-bit floats, as
    everywhere in TensorBoard. All values of a log share one record.

    Each training is a curve of its own. A run's further trainings (`train(); train()`) are in
    `training-2`, … below the directory of the first. A run whose directory already has another
    run's event files is in `run-2`, … below `logging_dir`, where TensorBoard shows it even if it is
    pointed at `logging_dir`; beside a default directory it is in `<date>_<host>-2`, …. What is
    logged after a training's end is with that training.

    A training resumed at step s begins a new file in the directory of the interrupted training,
    unless its settings name another directory, and the records after step s there are hidden.
    Nothing else is. If the steps of one tag go back within a training, a warning says which points
    TensorBoard's own default server then hides; of two values of one tag and step it shows the
    later. The hyper-parameter page shows the status of the first end in a directory: TensorBoard
    never reads a second one.
    """

    largest_step = LARGEST_STEP

    name: ClassVar[str] = "tensorboard"
    metrics_taken: ClassVar[str] = "numbers and texts"
    local: bool = True
    rewinds: ClassVar[bool] = True

    def __init__(
        self,
        tb_writer: Any = None,
        *,
        logging_dir: str | os.PathLike[str] | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self._logging_dir = given_directory(tb_writer, logging_dir)
        origin = path_in_utf8("the working directory", os.getcwd(), os.environ)
        self._position = self._acknowledged = _Position(origin=origin)
        self._writer = EventWriter()
        self._steps: dict[str, int] = {}
        self._scalars = CurveNames("TensorBoard", scalar_tag)
        self._texts_shown = CurveNames("TensorBoard", text_tag)
        self._went_back = False

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
        self._begin_training(state)
        highest = max(step, self._position.step)
        self._position = replace(self._position, trained=True, over=False, step=highest)
        self._add(records.values(self._seconds, step, {}, self._texts()))
        hparams = flatten(run_config(self.run))
        self._add(records.session_start(self._seconds, step, hparams))

    async def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember that the training has ended, for its status if another one follows."""
        self._position = replace(self._position, over=True)

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
        self._position = self._acknowledged = replace(
            self._position, file=writer.file, offset=writer.offset, home=writer.home
        )
        self.address = writer.home

    async def finish(self, status: RunStatus) -> None:
        """Write how the run ended; for a run without a single record, no file is made."""
        self._end_training(status)
        await self.flush()

    def state(self) -> dict[str, Any]:
        """Return the directory, and as attributes the end of the last acknowledged record."""
        return {
            "args": {"logging_dir": self._logging_dir, "names": self.names},
            "attributes": asdict(self._acknowledged),
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Continue after the last acknowledged record; later bytes of the file are overwritten."""
        position = _Position.stored(attributes)
        self._position = self._acknowledged = position
        self._writer = EventWriter(position.file, position.offset, position.home)
        self.address = position.home

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

        given, others = scalars(logs)
        given_texts = {name: logs[name] for name in others if isinstance(logs[name], str)}
        for name in others:
            if name not in given_texts:
                self.reject_value(name, logs[name])
        numbers = self._scalars.of(given, self.names)
        texts = self._texts_shown.of(given_texts, self.names)
        if not numbers and not texts:
            return
        step = state.global_step
        if self._position.file is None:
            self._begin_curve(state)
        self._note([*numbers, *texts], step)
        highest = max(step, self._position.step)
        self._position = replace(self._position, step=highest, logged=True)
        self._add(records.values(self._seconds, step, numbers, texts))

    def _note(self, tags: Iterable[str], step: int) -> None:
        """Warn, once, if the steps of a tag go back within a training."""
        for tag in tags:
            last = self._steps.get(tag, step)
            if step < last and not self._went_back:
                self._went_back = True
                logger.warning(
                    "TensorBoard: the steps of %s went back from %d to %d within one training. All "
                    "values are in the files, but TensorBoard's default server shows only the "
                    "later ones from step %d on (with --load_fast=false it shows all). If a new "
                    "training begins there, emit on_train_begin at step 0: it becomes a curve of "
                    "its own (said once)",
                    *(tag, last, step, step),
                )
            self._steps[tag] = step

    def _begin_training(self, state: TrainerState) -> None:
        """Begin a file if the training needs one: a curve of its own, or the rest of a curve."""
        position = self._position
        # The step of a checkpoint was logged before it was saved: only later steps are hidden.
        start = state.global_step + 1 if state.global_step > 0 else None
        if position.file is None:
            # A training resumed without our attributes goes on if its run's files are there.
            self._begin_curve(state, start)
        elif str(self._directory(state)) != position.base:
            self._begin_curve(state)
        elif start is not None:
            if position.trained:
                self._begin_file(None, start)
        elif position.logged and (position.trained or position.step > 0):
            self._end_training("finished" if position.over else "failed")
            self._begin_file(Claim(TRAINING))

    def _begin_curve(self, state: TrainerState, start: int | None = None) -> None:
        """Begin the first file of the run, or of a trial."""
        root, base = self._root(), str(self._directory(state))
        self._end_training("finished" if self._position.over else "failed")
        self._position = replace(self._position, root=root, base=base)
        by_default = self._logging_dir is None and base == root
        writer = writer_of(self.run.host, self.run.pid)
        claim = Claim(BESIDE if by_default else RUN, base, writer, resumes=start is not None)
        self._begin_file(claim, start)

    def _begin_file(self, claim: Claim | None, start: int | None = None) -> None:
        """Begin a file; without a claim, beside the current one."""
        last, count = self._position, self._position.count
        assert last.base is not None  # `_begin_curve` comes first
        after = Path(last.file).name if last.file is not None and claim is None else ""
        name = file_name(self.time, self.run.host, self.run.key, count, after)
        self._position = _Position(
            origin=last.origin,
            root=last.root,
            base=last.base,
            home=last.home,
            file=str(Path(last.base, name)),
            count=count + 1,
        )
        self._steps.clear()
        self._writer.begin(name, claim, start, self._seconds)

    def _end_training(self, status: RunStatus) -> None:
        """Write how the training ended, unless there was none or its end is written."""
        from asynccb.trackers.tensorboard import values as records

        if self._position.trained and not self._position.ended:
            self._add(records.session_end(self._seconds, self._position.step, status))
            self._position = replace(self._position, ended=True)

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
        texts = {ARGUMENTS: _json(self.run.args.to_dict())}
        if self.run.model is not None and self.run.model.config:
            texts[MODEL] = _json(self.run.model.config)
        return texts


def _json(config: Mapping[str, Any]) -> str:
    return json.dumps(clean(config), indent=2, ensure_ascii=False, allow_nan=False)
