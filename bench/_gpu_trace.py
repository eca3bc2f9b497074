"""Reading a Chrome trace of PyTorch's profiler: calls of the CUDA runtime, and spans to draw."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

MARK: Final = "all steps"
"""Name of the range around all steps; events outside belong to the measurement itself."""
STEP: Final = "step"
"""Name of the range around each step."""

_CALLS: Final = ("cuda_runtime", "cuda_driver")
_WORK: Final = ("kernel", "gpu_memcpy", "gpu_memset")
_HOST: Final = ("user_annotation", *_CALLS)
_WAITING: Final = ("Synchronize", "Pageable")

Span: TypeAlias = dict[str, Any]


def is_waiting(call: str) -> bool:
    """Return whether a call, or a kind of copy, makes the host wait for the device."""
    return call == "cudaMemcpy" or any(part in call for part in _WAITING)


@dataclass(frozen=True)
class Trace:
    """The complete events of a trace; times in microseconds."""

    events: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Read a trace, compressed or not."""
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        events = json.loads(content)["traceEvents"]
        return cls([event for event in events if event.get("ph") == "X"])

    def calls(self) -> Counter[str]:
        """Count the runtime calls on all threads, and the copies of each kind."""
        begin, end = self._range()
        counts: Counter[str] = Counter()
        for event in self.events:
            kind = event.get("cat")
            if (kind in _CALLS and begin <= event["ts"] <= end) or (
                kind == "gpu_memcpy" and event["ts"] >= begin
            ):
                counts[event["name"]] += 1
        return counts

    def threads(self) -> int:
        """Count the threads that made runtime calls during the steps."""
        return len({event["tid"] for event in self._made_in_steps()})

    def spans(self, first: int, count: int) -> list[Span]:
        """
        Return the spans of host and device during some steps; times count from their begin.

        The device usually lags behind the host: its work in that time belongs to earlier steps.
        """
        steps = sorted(self._named(STEP), key=lambda event: float(event["ts"]))
        chosen = steps[first : first + count]
        if not chosen:
            return []
        begin, end = chosen[0]["ts"], chosen[-1]["ts"] + chosen[-1]["dur"]
        return [
            {
                "row": f"stream {event['tid']}" if event["cat"] in _WORK else "host",
                "kind": event["cat"],
                "name": event["name"][:60],
                "begin": event["ts"] - begin,
                "duration": event["dur"],
            }
            for event in self.events
            if event.get("cat") in (*_HOST, *_WORK)
            and event["name"] != MARK
            and event["ts"] < end
            and event["ts"] + event["dur"] > begin
        ]

    def _made_in_steps(self) -> list[dict[str, Any]]:
        begin, end = self._range()
        return [e for e in self.events if e.get("cat") in _CALLS and begin <= e["ts"] <= end]

    def _range(self) -> tuple[float, float]:
        mark = self._named(MARK)[0]
        return mark["ts"], mark["ts"] + mark["dur"]

    def _named(self, name: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["name"] == name and e.get("cat") == "user_annotation"]
