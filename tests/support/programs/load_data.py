"""Emit while a DataLoader's workers come and go: METHOD EPOCHS DIRECTORY OUTPUT."""

import sys
import warnings

import torch

import asynccb
from tests.support.callbacks_for_tests import LogWitness

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point


class Items(torch.utils.data.Dataset):
    """Number the items; a worker that has the dispatcher tries to emit."""

    run = None

    def __len__(self):
        return 32

    def __getitem__(self, index):
        if self.run is not None:
            try:
                self.run.step(logs={"loss": -1.0})
            except asynccb.ForkedError:
                return index
            return -1
        return index


class Notes(asynccb.TrainerCallback):
    def __init__(self):
        self.steps = []

    async def on_log(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)


if __name__ == "__main__":
    method, epochs, directory, output = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
    steps = list(range(1, 8 * epochs + 1))
    notes, witness = Notes(), LogWitness(output)
    items = Items()
    with asynccb.CallbackDispatcher([notes, witness], directory=directory) as run:
        if method == "fork":
            items.run = run
        seen = []
        for _ in range(epochs):
            for batch in torch.utils.data.DataLoader(
                items, batch_size=4, num_workers=2, multiprocessing_context=method
            ):
                seen += batch.tolist()
                run.step(logs={"loss": 1.0})
        print("items", seen == list(range(32)) * epochs)
        print("flushed", run.flush(30))
        print("thread", notes.steps == steps)
        print("companion", [line["step"] for line in witness.lines()] == steps)
