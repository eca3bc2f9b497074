import pytest
import torch

from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks import PrinterCallback


@pytest.fixture
def printed(capsys):
    def on_log(logs, **state):
        PrinterCallback().on_log(
            TrainingArguments(), TrainerState(**state), TrainerControl(), logs=logs, model=None
        )
        return capsys.readouterr().out

    return on_log


def test_floats_are_printed_with_four_digits_and_all_else_as_it_is(printed):
    logs = {"loss": 0.123456, "step": 12345678, "note": "text", "flag": True}
    assert printed(logs) == "{'loss': '0.1235', 'step': 12345678, 'note': 'text', 'flag': True}\n"


def test_total_flos_are_not_printed(printed):
    assert printed({"total_flos": 1e18, "loss": 1.0}) == "{'loss': '1'}\n"


def test_the_logs_are_left_as_they_are(printed):
    logs = {"total_flos": 1e18, "loss": 0.123456}
    printed(logs)
    assert logs == {"total_flos": 1e18, "loss": 0.123456}


def test_no_logs_print_nothing(printed):
    assert printed(None) == ""


def test_a_tensor_is_not_turned_into_a_number(printed):
    assert printed({"loss": torch.zeros((), device="meta")}).startswith("{'loss': tensor(")


def test_only_the_first_process_of_a_machine_prints(printed):
    assert printed({"loss": 1.0}, is_local_process_zero=False) == ""
    assert printed({"loss": 1.0}, is_world_process_zero=False) != ""
