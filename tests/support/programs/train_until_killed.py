"""Train for ever, saying after each emit how far it is: OUTPUT DIRECTORY."""

import sys
from pathlib import Path

from asynccb import CallbackDispatcher
from tests.support.callbacks_for_tests import FileTracker, LogWitness

output, directory = Path(sys.argv[1]), Path(sys.argv[2])
callbacks = [FileTracker(str(output / "tracked")), LogWitness(output / "witnessed")]
run = CallbackDispatcher(callbacks, directory=directory)
run.emit("on_train_begin")
while True:
    run.step(logs={"loss": run.state.global_step / 2})
    print("emitted", run.state.global_step, flush=True)
