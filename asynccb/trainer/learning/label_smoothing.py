"""A loss with smoothed labels, in place of the model's own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from asynccb._ground.exceptions import ConfigurationError

logger = logging.getLogger("asynccb")


class SmoothedLoss:
    """
    Cross entropy with smoothed labels, the mean over the labels that are not -100.

    The labels are class numbers. For a causal language model of transformers, each position
    predicts the label of the next.
    """

    def __init__(self, model: nn.Module, factor: float) -> None:
        self._factor = factor
        self._shifts = _is_causal(model)

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss; raise `ConfigurationError` for labels that are no class numbers."""
        if labels.is_floating_point():
            raise ConfigurationError(
                f"label_smoothing_factor is {self._factor}, but the labels are {labels.dtype}; it "
                "takes class numbers; set it to 0"
            )
        logits = _logits(outputs)
        if self._shifts:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        return cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), label_smoothing=self._factor
        )


def smoothed_loss(model: nn.Module, factor: float) -> SmoothedLoss | None:
    """Return the loss, or None if the labels are not to be smoothed, or cannot be."""
    config = getattr(model, "config", None)
    if factor and getattr(config, "problem_type", None) == "multi_label_classification":
        logger.warning("label_smoothing_factor is ignored: a sample has several labels")
        return None
    return SmoothedLoss(model, factor) if factor else None


def _logits(outputs: Any) -> torch.Tensor:
    if isinstance(outputs, Mapping):
        outputs = outputs["logits"]
    elif isinstance(outputs, tuple | list):
        outputs = outputs[0]
    else:
        outputs = getattr(outputs, "logits", outputs)
    logits: torch.Tensor = outputs
    return logits


def _is_causal(model: nn.Module) -> bool:
    """Return whether transformers, if it is loaded, lists the model as a causal language model."""
    if "transformers" not in sys.modules:
        return False
    unwrap = getattr(model, "get_base_model", None)
    inner = unwrap() if callable(unwrap) else model
    names = import_module("transformers.models.auto.modeling_auto")
    return type(inner).__name__ in names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
