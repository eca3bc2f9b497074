"""How logs are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def readable(logs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a copy for printing: floats with four significant digits, `total_flos` left out.

    All else stays as it is: to turn a tensor into a float would make the loop wait for the GPU.
    """
    return {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in logs.items()
        if name != "total_flos"
    }
