"""
Log inside a compiled step, and print as JSON what came of it: DIRECTORY WHAT HOW TORCH.

WHAT is called, HOW is the mode of torch.compile or `eager`, and TORCH is imported `first`, `late`,
or first but without what 2.6 lacks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from asynccb import CallbackDispatcher, TrainerCallback

directory, what, how, when = sys.argv[1:]


class Seen(TrainerCallback):
    """Keep the logs."""

    def __init__(self) -> None:
        self.logs: list[Any] = []

    async def on_log(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.logs.append(others["logs"]["loss"])


if when == "old":
    import torch._dynamo

    del torch._C._dynamo.eval_frame.set_code_exec_strategy
elif when == "first":
    import torch

    assert "torch._dynamo" not in sys.modules
seen = Seen()
run = CallbackDispatcher([seen], directory=directory)
run.step(logs={"loss": -1.0})
if when == "late":
    assert "torch" not in sys.modules
    import torch
if when != "old":
    assert "torch._dynamo" not in sys.modules

options: dict[str, Any] = {"backend": "eager"} if how == "eager" else {"mode": how}


@torch.compile(**options)
def step(x: torch.Tensor) -> torch.Tensor:
    loss = (x * 2).sum()
    if what == "loop":
        for _ in range(2):
            print(end="")  # Dynamo gives up the whole frame
            run.step(logs={"loss": loss})
    elif what == "step":
        run.step(logs={"loss": loss})
    elif what == "log":
        run.log({"loss": loss})
    else:
        run.emit("on_log", logs={"loss": loss})
    return loss + 1


returned = [step(torch.full((3,), float(value))).item() for value in range(4)]
torch._dynamo.reset()
returned += [step(torch.full((3,), float(value))).item() for value in range(2)]
run.close()
breaks = torch._dynamo.utils.counters["graph_break"]
print(json.dumps({"returned": returned, "logged": seen.logs, "breaks": list(breaks.values())}))
