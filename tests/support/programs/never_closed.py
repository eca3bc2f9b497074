"""End without close(), by returning, raising or exiting: DIRECTORY OUTPUT HOW."""

import sys

from asynccb import CallbackDispatcher
from tests.support.callbacks_for_tests import FileTracker

run = CallbackDispatcher([FileTracker(sys.argv[2])], directory=sys.argv[1])
if sys.argv[3] != "returns before training":
    run.emit("on_train_begin")
for _ in range(10):
    run.step(logs={"loss": 1.0})
if sys.argv[3] == "raises":
    sys.excepthook = lambda *error: None
    raise RuntimeError("x")
if sys.argv[3] == "ends training":
    run.emit("on_train_end")
