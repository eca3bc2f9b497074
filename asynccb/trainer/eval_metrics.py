"""
The metrics of an evaluation: what `compute_metrics` receives, and when it is called.

Promises: every metric has the prefix; over all ranks a batch is given once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.distributed import process_group as distributed

ComputeMetrics = Callable[..., Mapping[str, Any]]


@dataclass
class EvalPrediction:
    """
    The argument of `compute_metrics`: numpy arrays, or nests of them, one row per sample.

    With `batch_eval_metrics` they are tensors of one batch, and `inputs` is the batch. `inputs` and
    `losses` are None unless `include_for_metrics` names them. Can be unpacked: predictions, labels,
    and those of the two that are not None.
    """

    predictions: Any
    label_ids: Any
    inputs: Any = None
    losses: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __getitem__(self, index: int) -> Any:
        return self._items()[index]

    def _items(self) -> tuple[Any, ...]:
        more = (part for part in (self.inputs, self.losses) if part is not None)
        return (self.predictions, self.label_ids, *more)


_RESULT: Final = "compute_result"


def check_compute_metrics(compute: ComputeMetrics | None, *, batchwise: bool) -> None:
    """Raise `ConfigurationError` if the function cannot be called with single batches."""
    if not batchwise or compute is None:
        return
    parameters = signature(compute).parameters
    if _RESULT not in parameters and all(
        p.kind is not Parameter.VAR_KEYWORD for p in parameters.values()
    ):
        raise ConfigurationError(
            f"batch_eval_metrics=True calls compute_metrics with {_RESULT}=, True with the last "
            f"batch; give compute_metrics a parameter {_RESULT!r}, or leave batch_eval_metrics out"
        )


def compute(function: ComputeMetrics, prediction: EvalPrediction, **result: bool) -> dict[str, Any]:
    """Return the metrics; those of a batch that is not the last one are ignored."""
    computed: object = function(prediction, **result)
    if result.get(_RESULT) is False:
        return {}
    if not isinstance(computed, Mapping):
        raise ConfigurationError(f"compute_metrics returned {computed!r}; return a dict of metrics")
    return dict(computed)


class BatchMetrics:
    """
    The metrics of `compute_metrics`, called with each batch.

    Every rank calls it with the batches of all ranks, so that each has the same result. Ranks call
    `add` in turn with a collective, and `finish` for the rounds of which they have no batch.
    """

    def __init__(
        self, function: ComputeMetrics, join: Callable[[list[Any]], EvalPrediction | None]
    ) -> None:
        self._function = function
        self._join = join
        self._done = False
        self.metrics: dict[str, Any] = {}

    def add(self, part: Any, *, last: bool) -> None:
        """Call the function with a batch; `last` if this rank has no other."""
        rounds = (
            distributed.gather((part, last)) if distributed.world_size() > 1 else [(part, last)]
        )
        self._done = all(last for _, last in rounds)
        prediction = self._join([part for part, _ in rounds if part is not None])
        if prediction is not None:
            self.metrics = compute(self._function, prediction, compute_result=self._done)

    def finish(self) -> None:
        """Take part until every rank has given its last batch."""
        while not self._done and distributed.world_size() > 1:
            self.add(None, last=True)


def prefixed(name: object, prefix: str) -> str:
    """Return a metric's name with the prefix; raise `ConfigurationError` for a name of no text."""
    if not isinstance(name, str):
        raise ConfigurationError(
            f"compute_metrics returned a metric named {name!r}; use strings as names"
        )
    return name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"
