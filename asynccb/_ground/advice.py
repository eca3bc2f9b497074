"""
What to log instead of a value that is no metric.

The only place that words this advice: for objects, as the training logs them, and for plain values,
as trackers receive them. Promises: a few words for any value; no code of the value's own runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_PICTURES: Final = frozenset({"matplotlib", "PIL", "plotly", "seaborn", "bokeh", "altair", "cv2"})
"""Packages whose objects are figures and images."""
_VENDORS: Final = frozenset({"wandb", "mlflow", "comet_ml", "swanlab", "trackio", "clearml", "aim"})
"""Packages of trackers, whose own objects only their own clients can log."""
_SHOWN: Final = 40
"""Characters of a key that are repeated in an example."""

PICTURE: Final = (
    "no tracker takes figures or images from a log; give a SummaryWriter to TensorBoardCallback as "
    "tb_writer and call its add_figure or add_image, or save the picture as a file in the "
    "checkpoint's folder"
)
ARRAY: Final = (
    "log its mean, its norm or some of its quantiles, each under a name of its own; for an image, "
    "give a SummaryWriter to TensorBoardCallback as tb_writer and call its add_image"
)
OTHER: Final = "log the number that matters, as a float"


def for_object(kind: type) -> str:
    """Return what to do instead of logging an object of a type."""
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if packages & _PICTURES:
        return PICTURE
    if packages & _VENDORS:
        (package, *_) = sorted(packages & _VENDORS)
        return f"only the package {package} itself can log its objects; log a number here"
    if {"torch", "numpy", "jax", "jaxlib", "tensorflow", "pandas", "polars"} & packages:
        return ARRAY
    return OTHER


def for_value(name: str, value: Any) -> tuple[str, str]:
    """Return what a plain value is, and what to do instead of logging it under its name."""
    if value is None:
        return "None", "leave the key out where there is no value"
    if isinstance(value, Mapping | list | tuple) and not value:
        return f"an empty {type(value).__name__}", "leave the key out where there is no value"
    if isinstance(value, Mapping):
        example = f"{name[:_SHOWN]}/{str(next(iter(value)))[:_SHOWN]}"
        return "a dict", f"log each of its values under a name of its own, such as {example!r}"
    if isinstance(value, list | tuple):
        example = f"{name[:_SHOWN]}/0"
        return "a list", f"log its mean, or each item under a name of its own, such as {example!r}"
    if isinstance(value, str):
        return "a text", _for_text(value)
    if isinstance(value, int):
        return "an integer above 1.8e308", "log its logarithm"
    return f"a {type(value).__name__}", for_object(type(value))


def _for_text(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"{OTHER}; TensorBoard, W&B, Comet, Trackio and DVCLive take texts, too"
    return "log it as a number, with float(…)"
