"""Use a callback of the main script that asks for the companion: DIRECTORY."""

import logging
import os
import sys

import asynccb

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")


class Mine(asynccb.TrainerCallback):
    placement = "process"

    async def on_log(self, args, state, control, logs=None, **kwargs):
        print("served", state.global_step, os.getpid() == TRAINING, flush=True)


TRAINING = os.getpid()
with asynccb.CallbackDispatcher([Mine()], directory=sys.argv[1]) as run:
    for _ in range(3):
        run.step(logs={"loss": 1.0})
