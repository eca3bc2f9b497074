"""Log to W&B at 1,000 steps a second, saying each: DIRECTORY STEPS; in the end it is finished."""

import sys
import time
from pathlib import Path

import asynccb

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
run = asynccb.CallbackDispatcher([asynccb.WandbCallback(project="killed")], directory=folder)
run.emit("on_train_begin")
begin = time.monotonic()
for step in range(1, steps + 1):
    run.step(logs={"loss": 1 / step})
    print(step, flush=True)
    time.sleep(max(0.0, begin + step / 1000 - time.monotonic()))
run.emit("on_train_end")
run.close(timeout=60.0)
