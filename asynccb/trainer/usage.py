"""
Counting the samples, tokens and floating-point operations of a training.

Promises: counting happens on the CPU, from the batch as the loader returned it, so it never waits
for a device. Under DDP this rank's count is multiplied by the number of ranks, which is exact if
all ranks have batches of the same size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asynccb._state.trainer_state import TrainerState
from asynccb.distributed import process_group as distributed
from asynccb.trainer.collate import count_samples


class Usage:
    """
    The counts of a training; most of them are kept in the state.

    `tokens` is "no", "all" or "non_padding" (the ones in `attention_mask`, or all tokens if the
    batch has no such mask). Operations are counted as transformers 5.24 counts them: 6 for each
    token and parameter outside the embeddings. They are known only if the model has transformers'
    `num_parameters(exclude_embeddings=...)` and the batch is a mapping with the model's main input.
    """

    def __init__(self, model: nn.Module, tokens: str) -> None:
        self._input = getattr(model, "main_input_name", "input_ids")
        self._tokens = tokens
        self._world = distributed.world_size()
        self._flos_per_token = 6 * _parameters(model)
        self.samples = 0

    def add(self, batch: Any, state: TrainerState) -> None:
        """Count one micro-batch of this rank, multiplied by the number of ranks."""
        self.samples += count_samples(batch) * self._world
        if self._tokens == "no" and not self._flos_per_token:
            return
        inputs = batch.get(self._input) if isinstance(batch, Mapping) else None
        if not isinstance(inputs, torch.Tensor):
            return
        state.total_flos += float(self._flos_per_token * inputs.numel() * self._world)
        if self._tokens != "no":
            state.num_input_tokens_seen += self._count(batch, inputs) * self._world

    def mark(self, state: TrainerState) -> tuple[int, float, int]:
        """Return the counts, for `take_back`."""
        return self.samples, state.total_flos, state.num_input_tokens_seen

    def take_back(self, state: TrainerState, mark: tuple[int, float, int]) -> None:
        """Forget what was counted since the mark."""
        self.samples, state.total_flos, state.num_input_tokens_seen = mark

    def _count(self, batch: Mapping[str, Any], inputs: torch.Tensor) -> int:
        mask = batch.get("attention_mask")
        if self._tokens == "non_padding" and isinstance(mask, torch.Tensor):
            return int(mask.sum())  # on the CPU: the batch is not on the device yet
        return inputs.numel()


def _parameters(model: nn.Module) -> int:
    """Return the number of parameters outside the embeddings, or 0 if the model cannot tell."""
    count = getattr(model, "num_parameters", None)
    if not callable(count) or "exclude_embeddings" not in inspect.signature(count).parameters:
        return 0
    return int(count(exclude_embeddings=True))
