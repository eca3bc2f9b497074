"""The speed of a run, an evaluation or a prediction, as metrics."""

from __future__ import annotations


def speed_metrics(
    prefix: str,
    seconds: float,
    *,
    samples: float | None = None,
    steps: int | None = None,
    tokens: int | None = None,
) -> dict[str, float]:
    """
    Return `<prefix>_runtime` in seconds, and the rates per second.

    The runtime is rounded to 4 places, the rates to 3, as in transformers. If no time has passed,
    the rates are left out.
    """
    metrics = {f"{prefix}_runtime": round(seconds, 4)}
    if seconds > 0:
        for name, count in (("samples", samples), ("steps", steps), ("tokens", tokens)):
            if count is not None:
                metrics[f"{prefix}_{name}_per_second"] = round(count / seconds, 3)
    return metrics
