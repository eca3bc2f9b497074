"""
The middle part of the `Trainer` class: preparing a training, new or resumed, and its checkpoints.

`Trainer(ResumableTrainer(BaseTrainer))` is one class in three files. Read them bottom up:
`base.py`, then `resumable.py` (this file), then `loop.py`.

Promises: a method synchronizes only if its docstring says so.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from asynccb._state.trainer_state import TrainerState
from asynccb.checkpoint import callback_states
from asynccb.checkpoint import folders as checkpoint
from asynccb.checkpoint.weights import load_weights
from asynccb.distributed import process_group as distributed
from asynccb.trainer import checks, random_state
from asynccb.trainer.base import BaseTrainer
from asynccb.trainer.best_model import find_best_again, note_best_checkpoint
from asynccb.trainer.data import Epochs
from asynccb.trainer.learning.filtered_losses import FilteredLosses
from asynccb.trainer.learning.losses import Losses
from asynccb.trainer.learning.optimization import Optimization
from asynccb.trainer.learning.optimizers import make_optimizer
from asynccb.trainer.learning.schedules import make_scheduler
from asynccb.trainer.memory import free_memory
from asynccb.trainer.resumed import Resumed, batch_size_of, remaining_length
from asynccb.trainer.training import TrainedModel, Training, enable_checkpointing
from asynccb.trainer.usage import Usage

logger = logging.getLogger("asynccb")


class ResumableTrainer(BaseTrainer):
    """A trainer that can prepare a training and write checkpoints, but has no loop."""

    def _prepare(self, found: Path | None) -> Training:
        """Make all objects that live as long as one training."""
        args, dataset = self.args, self.train_dataset
        assert dataset is not None
        whole = checkpoint.with_state(found)
        if whole and args.auto_find_batch_size:
            self._batch_size = batch_size_of(whole) or self._batch_size
        epochs = self._make_epochs(dataset)
        length = planned = checks.length_of(epochs, args)
        resumed = None
        if whole:
            resumed = Resumed(whole, epochs)
            length = resumed.length(epochs, args, planned)
        state = self.dispatcher.state = self._new_state(resumed, *length)
        random_state.seed_all(args.seed + distributed.rank())
        if found is not None:
            load_weights(self.model, found)
        optimization = self._make_optimization(state.max_steps)
        enable_checkpointing(self.model, args)
        model = TrainedModel(self.model, args, self.device)
        training = Training(
            model=model,
            epochs=epochs,
            optimization=optimization,
            losses=Losses(
                self.device,
                filtered=self._make_filtered(),
                shared=model.shares_loss,
                step=state.global_step,
            ),
            usage=Usage(self.model, str(args.include_num_input_tokens_seen)),
            directory=Path(args.output_dir).absolute(),
            planned=planned,
            first_step=state.global_step,
            first_tokens=state.num_input_tokens_seen,
        )
        if resumed is not None:
            training.load(resumed)
            self._resume_decisions(resumed.folder, training)
            if args.ignore_data_skip and training.position.batches != epochs.batches:
                training.position.batches = 0
        optimization.clear()
        self.dispatcher.train_dataloader = epochs.loader
        return training

    def _make_epochs(self, dataset: Dataset[Any]) -> Epochs:
        loader = self._loader(dataset, training=True)
        return Epochs(loader, dataset, self.args, self._batch_size)

    def _halve_batches(self, training: Training) -> None:
        """Go on with batches of half the size, from the first sample that has not been learnt."""
        args, state, position = self.args, self.state, training.position
        assert self.train_dataset is not None
        logger.warning(
            "a batch of %d samples does not fit into memory: training goes on with batches of %d",
            *(self._batch_size, self._batch_size // 2),
        )
        self._batch_size //= 2
        free_memory(self.device)
        epochs = self._make_epochs(self.train_dataset)
        position.batches = position.batches * training.epochs.samples // epochs.samples
        training.epochs, training.planned = epochs, checks.length_of(epochs, args)
        state.train_batch_size = self._batch_size
        state.max_steps, state.num_train_epochs = remaining_length(
            epochs, args, training.planned, position, state.global_step
        )
        state.compute_steps(args, state.max_steps)
        optimization = training.optimization
        if self._optimizers[1] is None:
            optimization.follow(make_scheduler(optimization.optimizer, args, state.max_steps))
            self.dispatcher.lr_scheduler = optimization.scheduler
        self.dispatcher.train_dataloader = epochs.loader

    def _make_filtered(self) -> FilteredLosses | None:
        if not self.args.logging_nan_inf_filter:
            return None
        return FilteredLosses(type(self.model).__name__, self.device, self.dispatcher.losses)

    def _make_optimization(self, max_steps: int) -> Optimization:
        """Return the optimization with the given optimizer and schedule, or with new ones."""
        args = self.args
        optimizer, scheduler = self._optimizers
        optimizer = make_optimizer(self.model, args) if optimizer is None else optimizer
        if scheduler is None:
            scheduler = make_scheduler(optimizer, args, max_steps)
        self.dispatcher.optimizer, self.dispatcher.lr_scheduler = optimizer, scheduler
        return Optimization(self.model, optimizer, scheduler, args, self.device)

    def _new_state(self, resumed: Resumed | None, max_steps: int, num_epochs: int) -> TrainerState:
        args = self.args
        state = TrainerState(train_batch_size=self._batch_size)
        state.compute_steps(args, max_steps)
        if resumed is not None:
            stored = resumed.state
            checks.warn_of_differences(args, state, stored)
            stored.compute_steps(args, max_steps)
            if args.restore_callback_states_from_checkpoint:
                callback_states.restore(self._stateful(), stored.stateful_callbacks)
                self.control._new_step()  # these flags were acted on at the checkpoint's step
            else:
                callback_states.say_left_out(self.dispatcher.callbacks, stored.stateful_callbacks)
            find_best_again(stored, resumed.folder)
            state = stored
        state.train_batch_size = self._batch_size
        state.is_hyper_param_search = False
        state.init_training_references(self, max_steps, num_epochs)
        return state

    def _save_checkpoint(self, training: Training) -> Path:
        """Write a checkpoint and return its path; synchronizes, and ranks wait for each other."""
        args, state = self.args, self.state
        path = checkpoint.checkpoint_path(training.directory, state.global_step)
        training.saved[state.global_step] = path
        note_best_checkpoint(state, training.saved)
        if training.position.batches:
            training.position.cut = self.control.should_epoch_stop
        decisions = self.dispatcher.state_dict()
        training.decisions = None if args.should_save else decisions
        state.stateful_callbacks = callback_states.capture(self._stateful(), decisions)
        with checkpoint.writing(path, owner=args.should_save) as folder:
            if not args.save_only_model:
                training.save_own(folder)
            if args.should_save:
                self.save_model(folder)
                if not args.save_only_model:
                    training.optimization.save(folder)
                self.dispatcher.settle()  # synchronizes
                self.dispatcher.save_trace(folder)
                state.save_to_json(str(folder / checkpoint.STATE_FILE))
        if args.should_save:
            checkpoint.rotate(path, args.save_total_limit, state.best_model_checkpoint)
        return path

    def _resume_decisions(self, found: Path, training: Training) -> None:
        """Restore the pending decisions; with several ranks, this rank's own decisions."""
        stored = callback_states.dispatcher_state(self.state.stateful_callbacks)
        if state := training.decisions or stored:
            self.dispatcher.resume_trace(found)
            self.dispatcher.load_state_dict(state)

    def _go_on_from_save(self, found: Path, training: Training) -> None:
        """Restore the decisions made on the checkpoint's `on_save`, after it was written."""
        control = self.dispatcher.emit_save_again(found)
        if training.position.batches:
            training.position.cut |= control.should_epoch_stop

    def _stateful(self) -> list[Any]:
        return [*self.dispatcher.callbacks, self.control]
