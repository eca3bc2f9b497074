"""
The inputs of a model, as its `forward` names them: which keys of a sample it takes, and which of
them are labels.

The rules are those of transformers 5.24, with one exception: if the `forward` of another model than
those of transformers takes `**kwargs`, no key is left out.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.training_arguments import TrainingArguments

logger = logging.getLogger("asynccb")

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONS = ("start_positions", "end_positions")
_ALWAYS = ("label", "label_ids")
"""Keys that the default collator renames to `labels`."""


class ModelInputs:
    """The names of a model's inputs and labels."""

    def __init__(self, model: nn.Module, args: TrainingArguments) -> None:
        # PEFT wraps a model, and its `forward` names nothing.
        unwrap = getattr(model, "get_base_model", None)
        inner = unwrap() if callable(unwrap) else model
        parameters = inspect.signature(inner.forward).parameters.values()
        self._model = type(inner).__name__
        self._named = [p.name for p in parameters if p.kind not in _VARIABLE]
        takes_any = any(p.kind in _VARIABLE for p in parameters)
        own = any(kind.__module__.startswith("transformers.") for kind in type(inner).__mro__)
        self._keeps_all = not args.remove_unused_columns or (takes_any and not own)
        self.main = str(getattr(model, "main_input_name", "input_ids"))
        """Name of the input that counts as the sample."""
        self.labels = self._find_labels() if args.label_names is None else args.label_names
        self.all_labels = args.label_names is not None
        """Whether a batch has labels only if it has all of them."""

    def _find_labels(self) -> list[str]:
        found = [name for name in self._named if "label" in name]
        if "QuestionAnswering" in self._model:
            found += [name for name in self._named if name in _POSITIONS]
        return found or ["labels"]

    def labels_in(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the names of the labels that a batch has."""
        found = [name for name in self.labels if batch.get(name) is not None]
        return [] if self.all_labels and len(found) < len(self.labels) else found

    def only(self, collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        """Return the collator for samples of which unused keys are left out first."""
        if self._keeps_all:
            return collate
        return _UsedKeys(collate, (*self._named, *_ALWAYS, *self.labels), self._model)


class _UsedKeys:
    """A collator that leaves out keys of the samples; says once which."""

    def __init__(
        self, collate: Callable[[list[Any]], Any], used: Sequence[str], model: str
    ) -> None:
        self._collate = collate
        self._used = frozenset(used)
        self._model = model
        self._said = False

    def __call__(self, samples: list[Any]) -> Any:
        """Collate the samples; raise `ConfigurationError` if the model takes none of their keys."""
        first = samples[0] if samples else None
        if not isinstance(first, Mapping) or self._used.issuperset(first):
            return self._collate(samples)
        used = [
            {key: value for key, value in sample.items() if key in self._used} for sample in samples
        ]
        self._say(first, used[0])
        return self._collate(used)

    def _say(self, sample: Mapping[str, Any], used: Mapping[str, Any]) -> None:
        unused = ", ".join(str(key) for key in sample if key not in used)
        if not used:
            raise ConfigurationError(
                f"the forward of {self._model} takes no key of a sample ({unused}); rename the "
                "keys, or set remove_unused_columns=False if a data_collator makes others of them"
            )
        if not self._said:
            self._said = True
            logger.info(
                "left out of the samples, because the forward of %s does not name them: %s",
                *(self._model, unused),
            )
