"""
Draw the results of the GPU benches: `python bench/_plot.py results/gpu_step.json ...`.

The picture of `x.json` is written beside it, as `x.png`. Needs matplotlib, but no GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Sequence[Mapping[str, Any]]

_COLOURS: Final = {
    "none": "#9aa0a6",
    "asynccb": "#1a73e8",
    "SummaryWriter": "#f29900",
    "transformers": "#e8710a",
    "W&B offline": "#a142f4",
    "MLflow asynchronous": "#188038",
}
_KINDS: Final = {
    "user_annotation": "#dadce0",
    "cuda_runtime": "#f29900",
    "cuda_driver": "#f29900",
    "kernel": "#1a73e8",
    "gpu_memcpy": "#d93025",
    "gpu_memset": "#a142f4",
}
_DPI: Final = 150


def draw_step(result: Result) -> Figure:
    """Draw each logger's ratio as a bar and its quartiles as a line; one panel for each cell."""
    rows: Rows = [row for row in result["rows"] if "ratio" in row]
    cells = list(dict.fromkeys((row["workload"], row["scalars"]) for row in rows))
    figure, panels = _panels(max(1, len(cells)), width=7.0, height=2.3)
    for panel, (workload, scalars) in zip(panels, cells, strict=False):
        here = [row for row in rows if (row["workload"], row["scalars"]) == (workload, scalars)]
        rate = here[0]["steps_per_second"]["median"]
        panel.set_title(
            f"{workload}, {scalars} scalars a step, {rate:,.0f} steps/s without logging"
        )
        _draw_ratios(panel, here)
    panels[-1].set_xlabel(f"steps/s with logging over without ({result['machine']['device']})")
    return figure


def _draw_ratios(panel: Axes, rows: Rows) -> None:
    names = [_label(row) for row in rows]
    ratios = [row["ratio"]["median"] for row in rows]
    panel.barh(names, ratios, color=[_COLOURS.get(row["logger"], "#5f6368") for row in rows])
    for place, row in enumerate(rows):
        low, _, high = row["ratio_quartiles"]
        panel.plot((low, high), (place, place), color="black")
        panel.text(max(high, ratios[place]) + 0.01, place, f"{ratios[place]:.3f}", va="center")
    panel.axvline(1.0, color="black", linewidth=0.6)
    panel.set_xlim(0, 1.2)
    panel.invert_yaxis()


def _label(row: Mapping[str, Any]) -> str:
    trackers = row.get("trackers")
    return f"{row['logger']}, {trackers} trackers" if trackers else str(row["logger"])


def draw_staging(result: Result) -> Figure:
    """Draw p50 and p99 of the cost of a call, and the percentiles of the latency."""
    costs = [row for row in result["rows"] if row["figure"] == "cost"]
    latencies = [row for row in result["rows"] if row["figure"] == "latency"]
    loads = list(dict.fromkeys(row["load"] for row in costs))
    figure, panels = _panels(len(loads) + bool(latencies), width=7.0, height=3.2)
    for panel, load in zip(panels, loads, strict=False):
        panel.set_title(f"cost of one log to the training thread, {load}")
        _draw_costs(panel, [row for row in costs if row["load"] == load])
    if latencies:
        _draw_latencies(panels[-1], latencies)
    return figure


def _draw_costs(panel: Axes, rows: Rows) -> None:
    for way in dict.fromkeys(row["way"] for row in rows):
        here = [row for row in rows if row["way"] == way]
        counts = [row["scalars"] for row in here]
        for label, line in (("p50", "-"), ("p99", ":")):
            figures = [row["microseconds"][label] for row in here]
            known = panel.lines[-1].get_color() if label == "p99" else None
            panel.plot(counts, figures, line, marker="o", color=known, label=f"{way} {label}")
    panel.set_yscale("log")
    panel.set_xticks(sorted({row["scalars"] for row in rows}))
    panel.set_xlabel("scalars")
    panel.set_ylabel("microseconds")
    panel.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_latencies(panel: Axes, rows: Rows) -> None:
    labels = list(rows[0]["milliseconds"])
    for row in rows:
        name = f"{row['workload']}, {row['steps_per_second']:,.0f} steps/s"
        panel.plot(labels, list(row["milliseconds"].values()), "o-", label=name)
    panel.axhline(50.0, color="black", linewidth=0.6, linestyle=":")
    panel.set_ylim(bottom=0)
    panel.set_ylabel("milliseconds")
    panel.set_title("from the end of the step on the GPU to the async hook")
    panel.legend(fontsize="x-small")


def draw_timeline(result: Result) -> Figure:
    """Draw the spans of host and device during some steps, without and with logging."""
    rows: Rows = result["rows"]
    figure, panels = _panels(2 * len(rows), width=11.0, height=2.0)
    for place, row in enumerate(rows):
        for shift, kind in enumerate(("without", "with")):
            panel = panels[2 * place + shift]
            title = f"{kind} {row['logger']}" if kind == "with" else "without logging"
            panel.set_title(f"{row['workload']}, {title}")
            _draw_spans(panel, row["spans"][kind])
    panels[-1].set_xlabel("microseconds, under the profiler")
    return figure


def _draw_spans(panel: Axes, spans: Rows) -> None:
    places = {name: place for place, name in enumerate(sorted({span["row"] for span in spans}))}
    order = list(_KINDS)
    for span in sorted(spans, key=lambda span: order.index(span["kind"])):
        panel.broken_barh(
            [(span["begin"], span["duration"])],
            (places[span["row"]] - 0.4, 0.8),
            facecolors=_KINDS[span["kind"]],
            edgecolor="white",
            linewidth=0.2,
        )
    panel.set_yticks(list(places.values()), list(places))


def _panels(count: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * count), layout="constrained")
    FigureCanvasAgg(figure)  # draws to memory: no display, no state outside the figure
    return figure, [figure.add_subplot(count, 1, number + 1) for number in range(count)]


DRAW: Final[dict[str, Callable[[Result], Any]]] = {
    "gpu_step": draw_step,
    "gpu_staging": draw_staging,
    "gpu_timeline": draw_timeline,
}


def draw(path: Path) -> Path:
    """Draw a result file and return the path of the picture; ValueError for other benches."""
    result = json.loads(path.read_text())
    if result.get("bench") not in DRAW:
        raise ValueError(
            f"{path} is the result of {result.get('bench')!r}; give a result of {list(DRAW)}"
        )
    picture = path.with_suffix(".png")
    DRAW[result["bench"]](result).savefig(picture, dpi=_DPI)
    return picture


def main() -> None:
    """Draw the files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        print(f"drawn to {draw(path)}")


if __name__ == "__main__":
    main()
