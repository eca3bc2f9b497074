"""The tracker classes that `report_to` names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.base import Tracker

_TRACKERS: Final = {
    "azure_ml": "azure_ml:AzureMLCallback",
    "clearml": "clearml:ClearMLCallback",
    "codecarbon": "codecarbon:CodeCarbonCallback",
    "comet_ml": "comet_ml:CometCallback",
    "dagshub": "dagshub:DagsHubCallback",
    "dvclive": "dvclive:DVCLiveCallback",
    "flyte": "flyte:FlyteCallback",
    "mlflow": "mlflow:MLflowCallback",
    "swanlab": "swanlab:SwanLabCallback",
    "tensorboard": "tensorboard:TensorBoardCallback",
    "trackio": "trackio:TrackioCallback",
    "wandb": "wandb:WandbCallback",
}
"""Names that `report_to` accepts, in the order in which `"all"` adds them, each with its module
below `trackers` and its class. A name whose module is missing counts as unknown."""

_ALIASES: Final = {
    "azureml": "azure_ml",
    "comet": "comet_ml",
    "flytekit": "flyte",
    "tensorboardx": "tensorboard",
}
"""Names of packages and products that differ from the name in transformers."""


def get_reporting_integration_callbacks(
    report_to: str | Iterable[str] | None, environ: Mapping[str, str] | None = None
) -> list[type[Tracker]]:
    """
    Return the tracker classes that `report_to` names, each once, in its order.

    `report_to` is `"all"`, `"none"` or None, a name, or a list of names. `"all"` means every
    tracker for which the environment (`environ`, by default that of this process) contains an
    address, a key or a directory; in transformers it means every installed package.
    Raises `ConfigurationError` for an unknown name, and lists the known names.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names in ([], ["none"]):
        return []
    known = [name for name, home in _TRACKERS.items() if _is_there(home)]
    if names == ["all"]:
        variables = os.environ if environ is None else environ
        return [tracker for tracker in map(_load, known) if tracker.is_configured(variables)]
    wanted = [_ALIASES.get(name, name) if isinstance(name, str) else name for name in names]
    unknown = [given for given, name in zip(names, wanted, strict=True) if name not in known]
    if unknown:
        raise ConfigurationError(
            f"report_to names {', '.join(map(repr, unknown))}; it takes 'all', 'none', or any of "
            f"{', '.join(known)}"
        )
    return [_load(name) for name in dict.fromkeys(wanted)]


def _is_there(home: str) -> bool:
    module, _, _ = home.partition(":")
    return find_spec(f"asynccb.trackers.{module}") is not None


def _load(name: str) -> type[Tracker]:
    module, _, cls = _TRACKERS[name].partition(":")
    tracker: type[Tracker] = getattr(import_module(f"asynccb.trackers.{module}"), cls)
    return tracker
