"""Emit a point a millisecond to a tracker, saying which were: CLASS DIRECTORY STEPS [ARGUMENTS]."""

import json
import os
import sys
import time

import asynccb

name, directory, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
tracker = getattr(asynccb, name)(**json.loads((sys.argv[4:] or ["{}"])[0]))
with asynccb.CallbackDispatcher([tracker], directory=directory) as run:
    begin = time.monotonic()
    for step in range(1, steps + 1):
        run.step(logs={"loss": 1 / step})
        os.write(1, b"%d\n" % step)
        time.sleep(max(0.0, begin + step / 1000 - time.monotonic()))
