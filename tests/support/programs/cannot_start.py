"""Run where no companion can be started: HOW DIRECTORY OUTPUT."""

import ctypes
import logging
import os
import resource
import sys

from asynccb import CallbackDispatcher
from tests.support.callbacks_for_tests import LogWitness

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
how, directory, output = sys.argv[1:]


def forbid_memfd() -> None:
    """Have the kernel answer EPERM to memfd_create, as the sandboxes of some clusters do."""
    allow, refuse = 0x7FFF0000, 0x00050001
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 319), (0x06, 0, 0, refuse), (0x06, 0, 0, allow)]

    class Step(ctypes.Structure):
        _fields_ = [
            ("code", ctypes.c_ushort),
            ("jt", ctypes.c_ubyte),
            ("jf", ctypes.c_ubyte),
            ("k", ctypes.c_uint),
        ]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]

    array = (Step * len(steps))(*[Step(*step) for step in steps])
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), array))) == 0  # PR_SET_SECCOMP


def leave_descriptors(count: int) -> None:
    """Allow so many more open files than there are."""
    least = os.open(os.devnull, os.O_RDONLY)
    os.close(least)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least + count, least + count))


match how:
    case "no python":
        os.unlink(sys.executable)  # the test has started this program by a link
    case "broken python":
        os.environ["PYTHONHOME"] = "/nowhere"
    case "no memfd":
        forbid_memfd()
    case "few descriptors":
        leave_descriptors(4)
    case "no descriptors":
        leave_descriptors(2)  # an event loop takes three
    case "no directory":
        open(directory, "w").close()

run = CallbackDispatcher([LogWitness(output)], directory=directory)
run.emit("on_train_begin")
for _ in range(5):
    run.step(logs={"loss": 1.0})
while how == "broken python" and not run._run.publisher.thread.loop.lanes:
    run.step(logs={"loss": 1.0})
for _ in range(3):
    run.step(logs={"loss": 1.0})
run.close(10)
counted = run.statistics()
counts = counted.callbacks["LogWitness"]
dropped = counts.dropped + counted.dropped
print("served", counts.delivered, "dropped", dropped, "of", run.state.global_step)
