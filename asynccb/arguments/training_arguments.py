"""
The settings of a training run, checked at construction.

Names and defaults are the same as in transformers 5.24, so that a swap is one import line; only
the default of `report_to` differs. A bad value raises `ConfigurationError`, which names the field,
at construction.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from inspect import Parameter, signature
from typing import Any, Self

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.checks import (
    check_combinations,
    check_values,
    plain,
    read_rank,
)
from asynccb.arguments.conversion import convert, set_defaults
from asynccb.arguments.intervals import absolute_steps
from asynccb.arguments.names import refuse_unknown
from asynccb.arguments.setters import GroupedSetters
from asynccb.arguments.strategies import (
    HubStrategy,
    IntervalStrategy,
    OptimizerNames,
    SaveStrategy,
    SchedulerType,
)


@dataclass
class TrainingArguments(GroupedSetters):
    """
    The settings of a training run.

    A strategy may be given as a string and is an enum afterwards. An interval (`logging_steps`,
    `eval_steps`, `save_steps`) below 1 is a share of the run; from 1 on it must be a whole number.

    Differences from transformers:

    * `report_to` is `"all"` by default, which means every tracker that is configured.
    * `save_strategy="best"` is refused without a metric or evaluations.
    * A value of the wrong type (`bf16="false"`) is refused.
    * Shares are exact: 0.07 of 100 steps are 7, not 8.
    """

    output_dir: str = "trainer_output"
    """Directory of checkpoints; `~` is expanded, None means the default. Not created here."""

    # Length of the run, and its batches
    num_train_epochs: float = 3.0
    """Number of epochs, possibly fractional."""
    max_steps: int = -1
    """Update steps; from 0 on, this overrides `num_train_epochs`."""
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    """Micro-batches of one update; the last group of an epoch may be smaller."""
    eval_accumulation_steps: int | None = None
    """Evaluation batches collected on the device before a copy to the CPU; None collects all."""
    auto_find_batch_size: bool = False
    """Halve the batch size whenever a batch does not fit into memory, and go on with that batch; in
    one process only."""
    do_eval: bool = False
    """Set to True automatically if `eval_strategy` is not "no"."""

    # Optimization
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    """Not applied to biases and norms."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Norm to which gradients are clipped; 0 or None switches clipping off."""
    optim: OptimizerNames | str = "adamw_torch_fused"
    optim_args: str | None = None
    """Options of "sgd", "adagrad" and "rmsprop", such as "momentum=0.9,nesterov=true"."""
    label_smoothing_factor: float = 0.0
    """Share of the probability that is spread over all classes; 0 leaves the loss to the model."""
    lr_scheduler_type: SchedulerType | str = "linear"
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    """Options of the schedule, such as `{"num_cycles": 2}`; a dict after construction, or None."""
    warmup_steps: float = 0
    """Steps of the warm-up; a value below 1 is a share of the run."""
    warmup_ratio: float = 0.0
    """Share of the run for the warm-up, used if `warmup_steps` is 0."""

    # Precision and device
    bf16: bool = False
    fp16: bool = False
    activation_checkpointing: bool | None = None
    """Compute activations again in the backward pass instead of keeping them; a bool after
    construction. The model needs a method for it, as models of transformers have."""
    activation_checkpointing_kwargs: dict[str, Any] | str | None = None
    gradient_checkpointing: bool | None = None
    """Earlier name of `activation_checkpointing`, which wins; equal to it after construction."""
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = None
    torch_compile: bool = False
    torch_compile_mode: str | None = None
    """Mode of `torch.compile`; a mode also sets `torch_compile` to True."""
    use_cpu: bool = False
    """Train on the CPU even if there is an accelerator; switches pinned memory off."""
    ddp_backend: str | None = None
    """Backend of `torch.distributed`; None means nccl on CUDA and gloo on the CPU."""
    ddp_find_unused_parameters: bool | None = None
    ddp_timeout: float = 1800.0
    """Seconds that ranks wait for one another before an error names the missing ranks. Applies to
    the process group that the Trainer makes and to the agreement on decisions."""

    # Data
    dataloader_num_workers: int = 0
    dataloader_prefetch_factor: int | None = None
    dataloader_pin_memory: bool = True
    dataloader_drop_last: bool = False
    remove_unused_columns: bool = True
    """Leave out the keys of a sample that the model's `forward` does not name."""
    label_names: list[str] | None = None
    """Keys of a batch that are labels; None means those parameters of `forward` whose name contains
    "label" (for question answering, the positions too)."""
    ignore_data_skip: bool = False
    """On resume, start the epoch's data again instead of skipping the batches already seen."""
    seed: int = 42
    data_seed: int | None = None
    """Seed of the order of the data; None means `seed`."""

    # Logging
    logging_strategy: IntervalStrategy | str = "steps"
    logging_steps: float = 500
    logging_first_step: bool = False
    """Log step 1 too, under any strategy."""
    logging_nan_inf_filter: bool = True
    """Log the mean of the window so far in place of a loss that is NaN or infinite, as transformers
    does. That mean is 0 until the window has a finite loss, so a model that has become NaN logs
    0.0. A warning says so once, and `statistics()` counts such losses. False logs the losses as
    they are; the training itself is the same."""
    include_num_input_tokens_seen: str | bool = "no"
    """"all", "non_padding" or "no"; True means "all"."""
    log_level: str = "passive"
    log_level_replica: str = "warning"
    log_on_each_node: bool = True
    disable_tqdm: bool | None = None
    """Print logs instead of a progress bar; None means True if the "asynccb" logger hides
    warnings."""

    # Reporting
    report_to: str | Sequence[str] | None = "all"
    """Tracker names, "all" (every one that is configured) or "none"; a list after construction."""
    run_name: str | None = None
    project: str = "huggingface"
    """Project at Trackio."""
    trackio_space_id: str | None = None
    trackio_bucket_id: str | None = None
    trackio_static_space_id: str | bool | None = None
    """Space for a static copy; `TrackioCallback` makes none, and warns if one is named here."""

    # Evaluation
    eval_strategy: IntervalStrategy | str = "no"
    eval_steps: float | None = None
    """None or 0 means `logging_steps`, if the strategy is "steps"."""
    eval_delay: float = 0
    """Steps or epochs, as the strategy counts, before the first evaluation; None means 0."""
    eval_on_start: bool = False
    prediction_loss_only: bool = False
    """Keep no predictions: `predict` returns None for them, and `compute_metrics` is not called."""
    include_for_metrics: list[str] = field(default_factory=list)
    """What `compute_metrics` receives in addition: "inputs", "loss", or both."""
    batch_eval_metrics: bool = False
    """Call `compute_metrics(prediction, compute_result=...)` with each batch, as tensors; True with
    the last one, whose result counts."""

    # Checkpoints
    save_strategy: SaveStrategy | str = "steps"
    save_steps: float = 500
    """0 saves at the last step only."""
    save_total_limit: int | None = None
    """Number of checkpoints to keep: the newest ones and the best; None keeps all."""
    save_on_each_node: bool = False
    save_only_model: bool = False
    """Leave out optimizer, scheduler and random state; no run can resume from such a checkpoint."""
    enable_jit_checkpoint: bool = False
    """Save a checkpoint when the process is asked to end."""
    load_best_model_at_end: bool = False
    """Also save the model whenever an evaluation is the best so far, even if no save is due."""
    metric_for_best_model: str | None = None
    """With or without the prefix `eval_`; None means "loss" if `load_best_model_at_end` is True."""
    greater_is_better: bool | None = None
    """None means False for a metric that ends in "loss", else True; for "perplexity", set it."""
    resume_from_checkpoint: str | None = None
    restore_callback_states_from_checkpoint: bool = False

    # Hub, for callbacks that push
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_strategy: HubStrategy | str = "every_save"
    hub_always_push: bool = False
    hub_private_repo: bool | None = None
    hub_token: str | None = field(default=None, repr=False)
    """Never shown: `to_dict()` contains `<HUB_TOKEN>` instead."""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Make an object; an unknown name is a `ConfigurationError` that names the right one."""
        parameters = signature(cls.__init__).parameters
        if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            refuse_unknown(named, list(parameters)[1:])
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._rank = read_rank(os.environ)
        set_defaults(self)
        convert(self)
        self.validate()

    def validate(self) -> None:
        """Raise `ConfigurationError` if a value, or a combination of two, cannot work."""
        check_values(self)
        check_combinations(self)

    @property
    def process_index(self) -> int:
        """Rank of this process among all processes, read from `RANK` at construction."""
        return self._rank.rank

    @property
    def local_process_index(self) -> int:
        """Rank of this process on its machine, read from `LOCAL_RANK` at construction."""
        return self._rank.local_rank

    @property
    def world_size(self) -> int:
        """Number of processes, read from `WORLD_SIZE` at construction."""
        return self._rank.world_size

    @property
    def should_log(self) -> bool:
        """Whether this process reports progress."""
        return self._leads(on_each_node=self.log_on_each_node)

    @property
    def should_save(self) -> bool:
        """Whether this process writes checkpoints."""
        return self._leads(on_each_node=self.save_on_each_node)

    def _leads(self, *, on_each_node: bool) -> bool:
        return (self.local_process_index if on_each_node else self.process_index) == 0

    @property
    def train_batch_size(self) -> int:
        """Samples in a micro-batch of this process."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Samples in an evaluation batch of this process."""
        return self.per_device_eval_batch_size

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the steps of the warm-up in a run of this many steps; a share is rounded up."""
        return absolute_steps(self.warmup_steps or self.warmup_ratio, num_training_steps)

    def to_dict(self) -> dict[str, Any]:
        """
        Return all fields as values that JSON can store.

        If a field's name ends in `_token`, its value is that name in angle brackets, set or not.
        """
        return {
            f.name: f"<{f.name.upper()}>"
            if f.name.endswith("_token")
            else plain(getattr(self, f.name))
            for f in fields(self)
        }

    def to_json_string(self) -> str:
        """Return `to_dict()` as JSON, indented by 2."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _set(self, **values: Any) -> Self:
        before = dict(self.__dict__)
        self.__dict__.update(values)
        try:
            set_defaults(self)
            convert(self)
            check_values(self)
        except ConfigurationError:
            self.__dict__ = before
            raise
        return self
