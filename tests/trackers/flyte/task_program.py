"""
Tasks of Flyte that train, for Flyte's own entry point; the environment says what befalls them.

    OUT            output directory of the training
    DIE_SYNCED     `train` kills itself at step 13, once the checkpoint of this step is stored
    SWITCHES       `switched` makes its tracker with these arguments, as JSON
    DIE_TORN       `tear` kills itself as soon as there is a file in this folder of the store
"""

import json
import os
import signal
import sys
from pathlib import Path

import flytekit

sys.path.insert(0, str(Path(__file__).parents[3]))

import asynccb
from tests.support.waiting import eventually


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(asynccb.TrainerCallback):
    """Come to the end that the environment wants."""

    def __init__(self, flyte: asynccb.FlyteCallback) -> None:
        self.flyte = flyte

    def on_step_end(self, args, state, control, **kwargs):
        step = os.environ.get("DIE_SYNCED")
        if step and state.global_step == 13:
            eventually(lambda: self.flyte._sync.synced == int(step))
            eventually(lambda: Path(self.flyte.address).exists())
            die()


@flytekit.task(enable_deck=True, retries=2)
def train() -> None:
    from tests.support.regression import Line, Model, arguments, history

    flyte = asynccb.FlyteCallback()
    args = arguments(Path(os.environ["OUT"]), max_steps=20, logging_steps=1, save_steps=5)
    args.save_total_limit = 1
    found = flyte.restore_checkpoint(args.output_dir)
    with asynccb.Trainer(
        Model(0.5), args, train_dataset=Line(), callbacks=[Dies(flyte), flyte]
    ) as trainer:
        trainer.train(resume_from_checkpoint=found)
    left = sorted(path.name for path in Path(args.output_dir).iterdir())
    weights = {name: float(value) for name, value in trainer.model.state_dict().items()}
    found = found and Path(found).name
    said = {"found": found, "left": left, "weights": weights, "history": history(trainer)}
    print("SAID " + json.dumps(said))


@flytekit.task(enable_deck=False)
def tear() -> None:
    """Save checkpoints of many files in a loop of our own."""
    args = asynccb.TrainingArguments(os.environ["OUT"])
    flyte = asynccb.FlyteCallback()
    with asynccb.CallbackDispatcher([flyte], args=args) as run:
        for step in (1, 2):
            run.step(logs={"loss": 1.0})
            folder = Path(args.output_dir, f"checkpoint-{step}")
            folder.mkdir(parents=True)
            for number in range(500):
                (folder / str(number)).write_text(f"{step} {number}")
            run.emit("on_save")
            if step == 1:
                eventually(lambda: flyte._sync.synced == 1)
        slot = Path(os.environ["DIE_TORN"])
        eventually(lambda: slot.exists() and any(slot.iterdir()))
        die()


@flytekit.task(enable_deck=True)
def switched() -> None:
    """Train with a tracker of which parts are switched on or off."""
    from tests.support.regression import Line, Model, arguments

    flyte = asynccb.FlyteCallback(**json.loads(os.environ["SWITCHES"]))
    args = arguments(Path(os.environ["OUT"]), max_steps=2, logging_steps=1)
    with asynccb.Trainer(Model(), args, train_dataset=Line(), callbacks=[flyte]) as trainer:
        trainer.train()
    print("SAID {}")
