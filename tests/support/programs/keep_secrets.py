"""Train with a secret in every variable that can hold one, and show what can be seen: DIRECTORY."""

import logging
import os
import sys
import time
from pathlib import Path

import asynccb

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
try:
    asynccb.MLflowCallback(tracking_uri=os.environ["MLFLOW_TRACKING_URI"] + ":not a port")
except asynccb.AsyncCCBError as error:
    print("refused:", error)
trackers = [
    asynccb.MLflowCallback(experiment_name="secrets"),
    asynccb.TensorBoardCallback(logging_dir=os.path.join(sys.argv[1], "board")),
]
args = asynccb.TrainingArguments(
    output_dir=sys.argv[1], hub_token=os.environ["HF_TOKEN"], run_name="secrets"
)
run = asynccb.CallbackDispatcher(trackers, args=args, directory=os.path.join(sys.argv[1], "runs"))
run.emit("on_train_begin")
for _ in range(5):
    run.step(logs={"loss": 1.0})
deadline = time.monotonic() + 20
while time.monotonic() < deadline:  # until the server's answer, or that there is none, is known
    counts = run.statistics().callbacks["MLflowCallback"]
    if counts.retried or counts.disabled or counts.delivered:
        break
    time.sleep(0.02)
try:
    asynccb.CallbackDispatcher([asynccb.MLflowCallback(tags=object())], args=args)
except asynccb.AsyncCCBError as error:
    print("refused:", repr(error))
print(trackers, trackers[0].state(), vars(trackers[0]), run, run.statistics(), args)
for process in Path("/proc").glob("[0-9]*/cmdline"):
    try:
        print(process.read_bytes())
    except OSError:
        continue
run.close(3.0)
