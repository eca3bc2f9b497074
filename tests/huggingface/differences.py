"""
Where our Trainer differs from that of transformers on purpose, and why.

A case that no entry names must be equal in every aspect; one that is named must differ in the
aspects that its entries name, and in no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Difference:
    """One decision to differ."""

    cases: tuple[str, ...]
    """Patterns of names of cases."""
    aspects: frozenset[str]
    reason: str

    def names(self, case: str) -> bool:
        return any(fnmatchcase(case, pattern) for pattern in self.cases)


DIFFERENCES = (
    Difference(
        ("max-steps-0",),
        frozenset({"events", "given", "logged", "train_loss", "state", "stored", "output"}),
        "max_steps=0 runs no step; transformers runs one, evaluates it and saves it.",
    ),
    Difference(
        ("on_train_begin-sets-training_stop", "on_epoch_begin-sets-*_stop"),
        frozenset({"events", "given", "logged", "train_loss", "state"}),
        "A stop that is asked for before a step runs none; transformers first runs a micro-batch, "
        "whose operations it counts.",
    ),
    Difference(
        (
            "on_epoch_begin-sets-epoch_stop",
            "on_step_begin-sets-epoch_stop",
            "on_substep_end-sets-epoch_stop",
        ),
        frozenset({"weights", "train_loss"}),
        "The gradient of a group that was cut short is dropped; in transformers it is added to "
        "that of the next epoch's first group.",
    ),
    Difference(
        ("on_step_begin-sets-training_stop", "on_substep_end-sets-training_stop"),
        frozenset({"train_loss"}),
        "The loss of a group that was cut short is dropped; transformers adds it to a sum that it "
        "divides by no step, or 0.001.",
    ),
    Difference(
        ("best-beside-saves",),
        frozenset({"events", "weights", "state", "stored"}),
        "With load_best_model_at_end a best model is saved when it is found; transformers, whose "
        "documentation says that too, saves it only if a save is due, and otherwise keeps the last "
        "weights or an earlier best.",
    ),
    Difference(
        ("resume-*",),
        frozenset({"train_loss"}),
        "train_loss is the mean over the whole run, also where it was interrupted, as every other "
        "figure of a resumed run is that of the uninterrupted one; in transformers it is the mean "
        "since the last start.",
    ),
    Difference(
        ("resume-4", "resume-8"),
        frozenset({"events"}),
        "A checkpoint of an epoch's last step was written before the epoch's end, so that is where "
        "a resumed run goes on, and what callbacks ask for at the end of the epoch is not lost; "
        "transformers goes on with the next epoch.",
    ),
    Difference(
        ("resume-3-windows",),
        frozenset({"given", "logged"}),
        "A log after a resume is the mean over its whole window, also of the steps before the "
        "checkpoint; transformers divides the sum since the start by the steps since the start.",
    ),
)


def deliberate(case: str) -> frozenset[str]:
    """Return the aspects in which a case differs on purpose."""
    found = [difference.aspects for difference in DIFFERENCES if difference.names(case)]
    return frozenset().union(*found)


ELSEWHERE = {
    "report_to is 'all' by default, and means what is configured, not what is installed":
        "tests/arguments/test_arguments.py, tests/trackers/test_report_to.py",
    "On resume the intervals of the arguments win, not those of the checkpoint":
        "tests/trainer/test_resume.py",
    "Callback states are put back into the instances that are there, which keep their places":
        "tests/trainer/test_resume.py",
    "Keys of a sample are kept if a forward takes **kwargs, but for models of transformers; in "
    "transformers all that a forward does not name are left out":
        "tests/trainer/test_model_inputs.py",
    "A batch that lacks a name of label_names still has the loss that the model returns":
        "tests/trainer/test_model_inputs.py",
    "auto_find_batch_size halves the batches within one run, from the batch that did not fit; "
    "transformers begins the training anew with 0.9 times the size":
        "tests/trainer/test_batch_size.py",
    "There is no hyperparameter_search; the error names what to use":
        "tests/trainer/test_batch_size.py",
    "Optimizer and schedule are made anew for each train(), unless given":
        "tests/trainer/test_trainer.py",
    "Accumulated batches count alike, whatever tokens they hold; num_items_in_batch is not passed, "
    "since the ranks would have to exchange it before each step. So the loss is the model's mean; "
    "that of a GPT-2 is smaller in transformers, which counts each row's first token, too":
        "tests/trainer/test_learning.py, tests/huggingface/test_values.py",
    "total_flos is left out where it is unknown; transformers says 0":
        "tests/huggingface/test_values.py",
    "A run that is resumed with other batches or data makes the steps that its epochs have left":
        "tests/trainer/test_resume.py",
    "A part of the model that is in evaluation mode stays so":
        "tests/trainer/test_data.py",
    "Weights are written under the model's own names, which from_pretrained reads, too":
        "tests/trainer/test_parity.py",
    "The printer prints a copy of the logs and leaves total_flos in them":
        "tests/callbacks/test_printer.py",
    "A metric for the best model that is missing is a ConfigurationError, not a KeyError":
        "tests/trainer/test_trainer.py",
    "A hook that returns anything but None or a control is a HookReturnError":
        "tests/dispatch/test_inline.py",
    "A callback that is added or removed within an event takes part from the next one on":
        "tests/dispatch/test_inline.py",
    "NaN and infinity are written to trainer_state.json as text, in strict JSON":
        "tests/state/test_json_file.py",
}  # fmt: skip
"""Differences that no case of the matrix shows, with the tests that do."""
