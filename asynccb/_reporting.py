"""Which trackers `report_to` stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Final

from asynccb._exceptions import ConfigurationError
from asynccb.trackers.base import Tracker

_TRACKERS: Final = {
    "azure_ml": "azure_ml:AzureMLCallback",
    "dagshub": "dagshub:DagsHubCallback",
    "mlflow": "mlflow:MLflowCallback",
    "tensorboard": "tensorboard:TensorBoardCallback",
    "trackio": "trackio:TrackioCallback",
    "wandb": "wandb:WandbCallback",
}
"""Names that `report_to` takes, in the order in which `"all"` adds them."""


def reporting_callbacks(
    report_to: str | Iterable[str] | None, environ: Mapping[str, str]
) -> list[type[Tracker]]:
    """
    Return the tracker classes that `report_to` names.

    `"all"` means every tracker that is configured: its address, key or directory is there. Raises
    `ConfigurationError`, listing what is known, for any other name.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names in ([], ["none"]):
        return []
    if names == ["all"]:
        return [tracker for tracker in map(_load, _TRACKERS) if tracker.is_configured(environ)]
    unknown = [name for name in names if name not in _TRACKERS]
    if unknown:
        raise ConfigurationError(
            f"report_to names {', '.join(map(repr, unknown))}; it takes 'all', 'none', or any of "
            f"{', '.join(_TRACKERS)}"
        )
    return [_load(name) for name in dict.fromkeys(names)]


def _load(name: str) -> type[Tracker]:
    module, _, cls = _TRACKERS[name].partition(":")
    tracker: type[Tracker] = getattr(import_module(f"asynccb.trackers.{module}"), cls)
    return tracker
