"""Emit a point a millisecond to a tracker, saying which were: CLASS DIRECTORY STEPS."""

import os
import sys
import time

import asynccb

name, directory, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
with asynccb.CallbackDispatcher([getattr(asynccb, name)()], directory=directory) as run:
    begin = time.monotonic()
    for step in range(1, steps + 1):
        run.step(logs={"loss": 1 / step})
        os.write(1, b"%d\n" % step)
        time.sleep(max(0.0, begin + step / 1000 - time.monotonic()))
