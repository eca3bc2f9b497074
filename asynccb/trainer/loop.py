"""
The training loop, top to bottom, with every event in its place: the last part of `Trainer`.

`Trainer(ResumableTrainer(BaseTrainer))` is one class in three files. Read them bottom up:
`base.py`, then `resumable.py`, then `loop.py` (this file).

Promises: between the first step and the last, the loop waits for the device only to evaluate, to
save and, with fp16 and an optimizer that is not fused, to unscale. Each such place is marked
"synchronizes". Losses and norms are logged as tensors.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from asynccb._ground.events import Event
from asynccb._ground.lifetime import status_of
from asynccb.checkpoint import folders as checkpoint
from asynccb.trainer import checks
from asynccb.trainer.best_model import load_best, note_best, saves_best
from asynccb.trainer.memory import is_out_of_memory
from asynccb.trainer.resumable import ResumableTrainer
from asynccb.trainer.sigterm import saving_on_signal
from asynccb.trainer.speed import speed_metrics
from asynccb.trainer.training import Training

logger = logging.getLogger("asynccb")


class TrainOutput(NamedTuple):
    """The result of `Trainer.train`; `training_loss` is the mean over all steps of the run."""

    global_step: int
    training_loss: float
    metrics: dict[str, Any]


class Trainer(ResumableTrainer):
    """
    Train a model, with callbacks that steer and watch.

    A batch is passed to the model as keyword arguments if it is a mapping, as positional arguments
    if it is a tuple. The model computes the loss and returns it (a scalar, `.loss`, or the first
    item of a tuple), or `compute_loss_func(outputs, labels)` computes it. `eval_dataset` may be a
    dict of datasets; the metrics of each are then named `eval_<name>_...`. `compute_metrics`
    receives numpy arrays of all predictions and labels. `optimizers` is a pair (optimizer,
    scheduler). For None, each `train()` makes a new optimizer or a new schedule from the arguments.
    `ReduceLROnPlateau` follows `metric_for_best_model`, or the loss, of each evaluation.

    The callbacks run in this order: `DefaultFlowCallback`, the trackers of `args.report_to`, yours,
    and the display. Under `torchrun` every rank makes a Trainer: gradients are averaged, the data
    is divided among the ranks, and the first rank saves. On a GPU the loop has its own CUDA stream.
    Trackers continue to deliver after `train()`. `close`, the end of a `with` block, and the end of
    the program wait for them. An exception in `train()` closes the dispatcher with the status
    "failed", or "killed" for Ctrl-C.

    Raises `ConfigurationError` for arguments that cannot be combined.
    """

    def train(
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None
    ) -> TrainOutput:
        """
        Train, and return the steps done, the mean loss and the metrics of the run.

        `resume_from_checkpoint` is a checkpoint folder, or True for the last one in
        `args.output_dir`. The run then continues, from any step, exactly as it would have without
        the interruption. It keeps the checkpoint's history and best metric, but follows the
        intervals of the arguments given now (a difference is a warning). If the batches or the data
        have changed, it makes as many steps as the rest of its epochs needs. Random numbers drawn
        in loader workers are not restored. The states of callbacks, such as the patience of early
        stopping, are restored only with `restore_callback_states_from_checkpoint=True`; otherwise
        a warning names these callbacks.

        Different from transformers, on purpose:

        - if a callback asks to stop at train begin, or with `max_steps=0`, no step is run; if it
          asks at epoch begin, no step of that epoch is run;
        - if a callback cuts a group short, the group's gradients and losses are dropped and never
          reach the next step;
        - all batches of a group have the same weight, even if the loss is a mean over tokens and
          they have different numbers of tokens: otherwise the ranks would have to exchange their
          counts before each step;
        - a flag that is set and then cleared before the loop acts on it is a warning (for example
          log, evaluate or save at train begin, at epoch begin, or on a save that is not at the last
          step of an epoch);
        - with `load_best_model_at_end`, an evaluation that is the best so far is saved even if no
          save is due: transformers loads the best of the saved ones, or none;
        - if a callback asks for a save, the save is made with `save_strategy="best"` too, even if
          the evaluation is not an improvement;
        - a run that a decision stopped stops again if it is resumed at that step; a run that
          a `def` hook, a request or `max_steps` stopped continues;
        - a finished run that is resumed runs no further step;
        - with `auto_find_batch_size`, a batch that does not fit is tried again as two halves, in
          the same run: transformers begins the training anew, with 0.9 times the size;
        - there is no `hyperparameter_search`;
        - on resume the arguments' intervals win over the checkpoint's, and `train_loss` is the
          mean over the whole run;
        - callback states are restored into the existing callbacks, which keep their places;
        - each `train()` makes a new optimizer and schedule, unless they are given;
        - the random generators are seeded at the start of each `train()`, with the rank added;
        - if an evaluation does not return the metric for the best model, a `ConfigurationError`
          lists the metrics that it returned.

        Raises `ConfigurationError` for a missing dataset or checkpoint, and any exception of a
        `def` hook or of the model. The dispatcher is then closed with the status "failed", or
        "killed" for Ctrl-C.
        """
        checks.check_train_dataset(self.train_dataset)
        checks.check_output_dir(self.args)
        found = checkpoint.find_checkpoint(resume_from_checkpoint, Path(self.args.output_dir))
        try:
            jit = self.args.enable_jit_checkpoint
            with self._own_stream(), saving_on_signal(jit, self.dispatcher.request):
                training = self._prepare(found)
                self._emit_at_begin(Event.TRAIN_BEGIN, again=training.first_step > 0)
                if found is not None and training.first_step > 0:
                    self._go_on_from_save(found, training)
                if self.args.eval_on_start and training.first_step == 0:
                    self.evaluate()
                if training.first_step == 0:
                    training.lost.before_first_epoch(self.control)
                going = True
                while going and not self._is_over(training):
                    going = self._train_epoch(training)
                return self._finish(training)
        except BaseException as error:
            self.dispatcher.close(status=status_of(error))
            raise

    def _is_over(self, training: Training) -> bool:
        state, position = self.state, training.position
        stops = self.control.should_training_stop or state.global_step >= state.max_steps
        # If the checkpoint is from after an epoch's last step, that epoch has still to be ended.
        return position.epoch >= state.num_train_epochs or (stops and position.batches == 0)

    def _train_epoch(self, training: Training) -> bool:
        """Run an epoch, or the rest of it; return whether the next epoch may begin."""
        position = training.position
        if position.batches == 0:
            training.restore_random()
        self._emit_at_begin(Event.EPOCH_BEGIN, again=position.batches > 0)
        groups = training.epochs.groups(position.epoch, position.batches)
        training.restore_random()
        exhausted = position.batches == training.epochs.batches
        while not (position.cut or exhausted or self._leaves_epoch()):
            if group := next(groups, None):
                self._train_step(training, group)
                if training.tries_again:
                    groups = training.epochs.groups(position.epoch, position.batches)
            exhausted = group is None or position.batches == training.epochs.batches
        if exhausted and position.batches == 0:
            logger.warning("the training data gave no batch: training stops")
            self.control.should_training_stop = True
        self._emit(Event.EPOCH_END)
        done = exhausted or position.cut or self.control.should_epoch_stop
        if done:
            training.position = position.next_epoch()
        self._log_evaluate_save(training)
        return done

    def _emit_at_begin(self, event: Event, *, again: bool) -> None:
        """Emit an event; `again` if the run emitted it before its checkpoint."""
        (self.dispatcher.emit_again if again else self.dispatcher.emit)(event)

    def _leaves_epoch(self) -> bool:
        control, state = self.control, self.state
        stop = control.should_epoch_stop or control.should_training_stop
        return stop or state.global_step >= state.max_steps

    def _train_step(self, training: Training, group: list[Any]) -> None:
        state, optimization = self.state, training.optimization
        training.lost.before_step(self.control, state.global_step, training.losses.last_logged)
        if not training.tries_again:
            self._emit(Event.STEP_BEGIN)
        if not self.model.training:
            self.model.train()
        counts = training.usage.mark(state)
        fits = self._accumulate_if_it_fits(training, group)
        training.tries_again = fits is None
        if not fits:
            optimization.clear()
            training.losses.discard()
            training.model.take_loss()
        if fits is None:
            training.usage.take_back(state, counts)
            self._halve_batches(training)
        if not fits:
            return
        grad_norm = optimization.clip()
        self._emit(Event.PRE_OPTIMIZER_STEP)
        optimization.update()
        self._emit(Event.OPTIMIZER_STEP)
        training.figures = {"grad_norm": grad_norm, "learning_rate": optimization.learning_rate()}
        optimization.advance()
        optimization.clear()
        training.losses.commit(training.model.take_loss())
        training.position.batches += len(group)
        state.global_step += 1
        state.epoch = training.epochs.fraction(training.position, state.max_steps)
        self._emit(Event.STEP_END)
        self._log_evaluate_save(training)

    def _accumulate_if_it_fits(self, training: Training, group: list[Any]) -> bool | None:
        """Do as `_accumulate`; return None if smaller batches are wanted and may help."""
        try:
            return self._accumulate(training, group)
        except (RuntimeError, MemoryError) as error:
            if not (self.args.auto_find_batch_size and is_out_of_memory(error)):
                raise
            if self._batch_size == 1:
                error.add_note("auto_find_batch_size: a batch of 1 sample does not fit either")
                raise
        return None

    def _accumulate(self, training: Training, group: list[Any]) -> bool:
        """Add up the gradients of a group; return False if a callback cut the group short."""
        for number, batch in enumerate(group, 1):
            training.usage.add(batch, self.state)
            last = number == len(group)
            with training.model.exchanging(last):
                loss = self._forward.loss(training.model.call, batch)
                if len(group) > 1:
                    loss = loss / len(group)
                counted = training.losses.add(loss, self.state.global_step)
                training.optimization.backward(training.model.with_loss(loss, counted))
            if not last:
                control = self._emit(Event.SUBSTEP_END)
                if control.should_epoch_stop or control.should_training_stop:
                    return False
        return True

    def _log_evaluate_save(self, training: Training) -> None:
        step = self.state.global_step
        if self.control.should_log and step > training.losses.last_logged:
            logs = {"loss": training.losses.take(step), **training.figures}
            self._log(logs, training)
        if self.control.should_evaluate:
            metrics = self.evaluate()
            training.optimization.judge(metrics)
            if note_best(self.args, self.state, metrics) and saves_best(self.args):
                self.control.should_save = True
        if self.control.should_save:
            self.dispatcher.emit_save(self._save_checkpoint(training))

    def _finish(self, training: Training) -> TrainOutput:
        state = self.state
        loss = training.losses.finish(state.global_step)  # synchronizes
        metrics: dict[str, Any] = speed_metrics(
            "train",
            training.seconds,
            samples=training.usage.samples,
            steps=state.global_step - training.first_step,
        )
        if state.total_flos:  # 0 means unknown
            metrics["total_flos"] = float(state.total_flos)
        metrics["train_loss"] = loss
        self.log(metrics)
        load_best(self.args, state, self.model, training.directory)
        self._emit(Event.TRAIN_END)
        return TrainOutput(state.global_step, loss, metrics)
