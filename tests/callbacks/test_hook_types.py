"""The types of hooks, tested as a user's type checker sees them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = """\
from typing import Any
from asynccb.callbacks.base import TrainerCallback
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
"""
HOOK = (
    "(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, {}**kwargs: Any)"
)
PLAIN, LOGS = HOOK.format(""), HOOK.format("logs: dict[str, Any] | None = None, ")

GOOD = {
    "inline": f"def on_step_end{PLAIN} -> None: ...",
    "asynchronous": f"async def on_save{PLAIN} -> None: ...",
    "inline_control": f"def on_epoch_end{PLAIN} -> TrainerControl: return control",
    "asynchronous_control": f"async def on_train_end{PLAIN} -> TrainerControl | None: return None",
    "logs": f"async def on_log{LOGS} -> None: ...",
    "writes": f"def on_save{PLAIN} -> None: control.should_training_stop = state.epoch > 1",
    "option": 'placement = "process"',
}
BAD = {
    "inline_int": f"def on_step_end{PLAIN} -> int: return 1",
    "asynchronous_int": f"async def on_step_end{PLAIN} -> int: return 1",
    "no_arguments": "def on_step_end(self) -> None: ...",
    "unknown_flag": f"def on_save{PLAIN} -> None: control.should_halt = True",
    "unknown_option": 'on_error = "ignore"',
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory) -> dict[str, str]:
    """Run mypy once over one class a line; return its errors by class."""
    sample = tmp_path_factory.mktemp("typing") / "sample.py"
    classes = [f"class {name}(TrainerCallback): {body}" for name, body in (GOOD | BAD).items()]
    sample.write_text(HEADER + "".join(line.replace(": ", ":\n    ", 1) + "\n" for line in classes))
    config = sample.with_name("mypy.ini")
    # Nothing of torch is in a hook's types, and to read it takes mypy a minute.
    config.write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")
    options = ["--strict", f"--config-file={config}", "--follow-imports=silent"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"--cache-dir={sample.parent}", str(sample)],
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(r"sample\.py:(\d+): error: (.*)", run.stdout)
    return {owner(sample, int(line)): message for line, message in reversed(found)}


def owner(sample: Path, line: int) -> str:
    before = sample.read_text().splitlines()[:line]
    return next(m[1] for text in reversed(before) if (m := re.match(r"class (\w+)", text)))


@pytest.mark.parametrize("name", GOOD)
def test_hooks_may_be_def_or_async_def_and_return_nothing_or_a_control(complaints, name):
    assert complaints.get(name) is None


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_a_hook_is_an_error_to_a_type_checker(complaints, name):
    assert complaints.get(name)
