"""
The first part of the `Trainer` class: model, device, callbacks, evaluation and prediction.

`Trainer(ResumableTrainer(BaseTrainer))` is one class in three files. Read them bottom up: `base.py`
(this file), then `resumable.py`, then `loop.py`.

Promises: an error in the constructor leaves nothing running; `close` has one deadline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from asynccb._dispatch.dispatcher import CallbackDispatcher
from asynccb._ground.events import Event
from asynccb._ground.exceptions import ConfigurationError
from asynccb._ground.lifetime import status_of
from asynccb._ground.types import RunStatus
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks import DefaultFlowCallback, PrinterCallback, ProgressCallback
from asynccb.callbacks.base import TrainerCallback
from asynccb.checkpoint import folders as checkpoint
from asynccb.checkpoint.model_files import save_weights
from asynccb.distributed import process_group as distributed
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from asynccb.trainer.checks import check_datasets, check_trainer, precision_of
from asynccb.trainer.collate import default_collate
from asynccb.trainer.cuda_stream import OwnStream
from asynccb.trainer.data import Collator, make_loader
from asynccb.trainer.eval_metrics import ComputeMetrics, check_compute_metrics
from asynccb.trainer.evaluation import Evaluated, Evaluation, PredictionOutput
from asynccb.trainer.forward import ComputeLoss, Forward
from asynccb.trainer.learning.label_smoothing import smoothed_loss
from asynccb.trainer.model_inputs import ModelInputs
from asynccb.trainer.speed import speed_metrics
from asynccb.trainer.training import Training

CallbackLike: TypeAlias = TrainerCallback | type[TrainerCallback]
Datasets: TypeAlias = Dataset[Any] | Mapping[str, Dataset[Any]]


class BaseTrainer:
    """A model with its callbacks, and its evaluation; `Trainer` documents the arguments."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Dataset[Any] | None = None,
        eval_dataset: Datasets | None = None,
        data_collator: Collator | None = None,
        callbacks: Sequence[CallbackLike] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
        compute_loss_func: ComputeLoss | None = None,
        compute_metrics: ComputeMetrics | None = None,
        processing_class: Any = None,
        replay: str | os.PathLike[str] | None = None,
    ) -> None:
        self.args = args = TrainingArguments() if args is None else args
        check_trainer(model, args, optimizers, callbacks)
        check_datasets(args, train_dataset, eval_dataset)
        check_compute_metrics(compute_metrics, batchwise=args.batch_eval_metrics)
        reporters = get_reporting_integration_callbacks(args.report_to)
        self.device = distributed.choose_device(args.use_cpu)
        self._batch_size = args.train_batch_size
        """Samples in a micro-batch of a training; `auto_find_batch_size` makes it smaller."""
        self._inputs = ModelInputs(model, args)
        self._forward = Forward(
            self.device,
            precision_of(args, self.device),
            compute_loss_func,
            smoothed_loss(model, args.label_smoothing_factor),
            inputs=self._inputs,
        )
        self._own_stream = OwnStream(self.device)
        distributed.join(self.device, args.ddp_backend, args.ddp_timeout)
        self._optimizers = optimizers
        self.model = model.to(self.device)
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.data_collator = data_collator
        self.compute_metrics = compute_metrics
        self.processing_class = processing_class
        display = PrinterCallback if args.disable_tqdm else ProgressCallback
        self.dispatcher = CallbackDispatcher(
            [DefaultFlowCallback, *reporters, *(callbacks or ()), display],
            args=args,
            model=self.model,
            optimizer=optimizers[0],
            lr_scheduler=optimizers[1],
            processing_class=processing_class,
            replay=None if replay is None else Path(replay),
        )
        try:
            self._emit(Event.INIT_END)
        except BaseException as error:
            self.close(status=status_of(error))
            raise

    @property
    def state(self) -> TrainerState:
        """The progress of the run; a new object for each `train()`."""
        return self.dispatcher.state

    @property
    def control(self) -> TrainerControl:
        """The flags that callbacks set to steer the run."""
        control: TrainerControl = self.dispatcher.control
        return control

    def _emit(self, event: Event, **extra: Any) -> TrainerControl:
        return self.dispatcher.emit(event, **extra)

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Datasets | None = None,
        *,
        metric_key_prefix: str = "eval",
    ) -> dict[str, Any]:
        """
        Evaluate, log the metrics and return them; synchronizes.

        The mean loss over the samples is `eval_loss`. Several datasets are logged one by one, and
        their metrics are returned together. Raises `ConfigurationError` if no dataset was given
        or if it contains no sample.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ConfigurationError("there is nothing to evaluate; give an eval_dataset")
        if isinstance(dataset, Mapping):
            metrics: dict[str, Any] = {}
            for name, part in dataset.items():
                metrics |= self.evaluate(part, metric_key_prefix=f"{metric_key_prefix}_{name}")
            return metrics
        _, metrics = self._evaluate(dataset, metric_key_prefix, keep=False)
        self.log(metrics)
        self._emit(Event.EVALUATE, metrics=metrics)
        return metrics

    def predict(
        self, test_dataset: Dataset[Any], *, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Return predictions and labels as numpy arrays, and unlogged metrics; synchronizes."""
        evaluated, metrics = self._evaluate(test_dataset, metric_key_prefix, keep=True)
        self._emit(Event.PREDICT, metrics=metrics)
        return PredictionOutput(evaluated.predictions, evaluated.labels, metrics)

    def _end_prediction_step(self) -> None:
        self._emit(Event.PREDICTION_STEP)

    def _loader(self, dataset: Dataset[Any], *, training: bool) -> DataLoader[Any]:
        pin = self.device.type == "cuda"
        collate = self._inputs.only(self.data_collator or default_collate)
        size = self._batch_size if training else self.args.eval_batch_size
        return make_loader(dataset, self.args, collate, size, training=training, pin=pin)

    def _evaluate(
        self, dataset: Dataset[Any], prefix: str, *, keep: bool
    ) -> tuple[Evaluated, dict[str, Any]]:
        loader = self._loader(dataset, training=False)
        self.dispatcher.eval_dataloader = loader
        evaluation = Evaluation(
            self._forward,
            self._end_prediction_step,
            self.args,
            self.compute_metrics,
            self._inputs.main,
        )
        with self._own_stream():
            evaluated = evaluation.run(self.model, loader, keep=keep)
        return evaluated, evaluated.metrics(prefix)

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `ConfigurationError`: a library for it calls a function that makes a Trainer."""
        raise ConfigurationError(
            "asynccb.Trainer has no hyperparameter_search: use optuna's study.optimize, ray.tune "
            "or W&B sweeps, with a function that makes a Trainer for each trial and returns "
            "trainer.evaluate()['eval_loss']"
        )

    # Callbacks

    def log(self, logs: dict[str, Any]) -> None:
        """Add the epoch to `logs`, append a copy to the history, and send them to callbacks."""
        self._log(logs, None)

    def _log(self, logs: dict[str, Any], training: Training | None) -> None:
        logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = seen = self.state.num_input_tokens_seen
            if training is not None:
                tokens = seen - training.first_tokens
                logs |= speed_metrics("train", training.seconds, tokens=tokens)
        # The loop computes its own logs outside of any graph; logs of other callers may hold
        # anything.
        self.dispatcher.log(logs)

    def add_callback(self, callback: CallbackLike) -> None:
        """Add a callback at the end: an instance, or a class to be called without arguments."""
        self.dispatcher.add_callback(callback)

    def pop_callback(self, callback: CallbackLike) -> Any:
        """Remove a callback and return it, or None; a class stands for its first instance."""
        return self.dispatcher.pop_callback(callback)

    def remove_callback(self, callback: CallbackLike) -> None:
        """Remove a callback; a class stands for its first instance."""
        self.dispatcher.remove_callback(callback)

    def is_local_process_zero(self) -> bool:
        """Return whether this is the first process on its machine."""
        return self.args.local_process_index == 0

    def is_world_process_zero(self) -> bool:
        """Return whether this is the first process of the whole run."""
        return self.args.process_index == 0

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Write weights, processing class and arguments, on the first rank only.

        `output_dir` defaults to the `output_dir` of the arguments.
        """
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder)
        if callable(save := getattr(self.processing_class, "save_pretrained", None)):
            save(str(folder))
        (folder / checkpoint.ARGUMENTS_FILE).write_text(self.args.to_json_string() + "\n", "utf-8")

    # The end

    def close(self, timeout: float = 30.0, status: RunStatus = "finished") -> None:
        """Wait at most `timeout` seconds until the callbacks have finished, then end them."""
        self.dispatcher.close(timeout, status=status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(status=status_of(error))
