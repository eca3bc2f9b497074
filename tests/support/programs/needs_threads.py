"""End with events for a hook that needs a thread each time, or train in one: FILE main|thread."""

import asyncio
import sys
import threading
from pathlib import Path

from asynccb import CallbackDispatcher, TrainerCallback

file, how = Path(sys.argv[1]), sys.argv[2]
ended = threading.Event()


def note(step: int) -> None:
    with file.open("a") as opened:
        opened.write(f"{step}\n")


class Notes(TrainerCallback):
    async def on_step_end(self, args, state, control, **kwargs):
        if how == "main":
            await asyncio.to_thread(note, state.global_step)
        else:  # no thread is to be had any more where the program's own threads have ended
            note(state.global_step)


run = CallbackDispatcher([Notes()], directory=file.parent)


def train() -> None:
    if how == "thread":
        threading.main_thread().join()
    for _ in range(10):
        run.step()


if how == "main":
    train()
else:
    threading.Thread(target=train).start()
