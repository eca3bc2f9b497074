"""Emit a point a millisecond to MLflow, saying which were: URI EXPERIMENT DIRECTORY STEPS."""

import os
import sys
import time

import asynccb

uri, experiment, directory, steps = *sys.argv[1:4], int(sys.argv[4])
tracker = asynccb.MLflowCallback(tracking_uri=uri, experiment_name=experiment)
with asynccb.CallbackDispatcher([tracker], directory=directory) as run:
    begin = time.monotonic()
    for step in range(1, steps + 1):
        run.step(logs={"loss": 1 / step})
        os.write(1, b"%d\n" % step)
        time.sleep(max(0.0, begin + step / 1000 - time.monotonic()))
