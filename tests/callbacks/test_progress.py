import subprocess
import sys

import pytest
import torch

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks import ProgressCallback

COUNT_THREADS = """
import threading
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks import ProgressCallback

callback = ProgressCallback()
callback.on_train_begin(TrainingArguments(), TrainerState(max_steps=5), TrainerControl())
print(threading.active_count())
"""


class Run:
    """Call a progress callback's hooks as a loop would."""

    def __init__(self, capsys, **settings) -> None:
        self.capsys = capsys
        self.callback = ProgressCallback(**settings)
        self.state = TrainerState(max_steps=20)

    def fire(self, hook: str, **keywords) -> None:
        getattr(self.callback, hook)(TrainingArguments(), self.state, TrainerControl(), **keywords)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.state.global_step += 1
            self.fire("on_step_end", model=None)

    def bar(self) -> str:
        return self.capsys.readouterr().err

    def written(self) -> str:
        return self.capsys.readouterr().out.strip()


@pytest.fixture
def run(capsys):
    run = Run(capsys)
    yield run
    run.fire("on_train_end")


class TestTrainingBar:
    def test_it_ends_at_the_last_step(self, run):
        run.fire("on_train_begin")
        run.steps(20)
        run.fire("on_train_end")
        assert "20/20" in run.bar()
        assert run.callback.training_bar is None

    def test_it_ends_where_a_run_stopped_early(self, run):
        run.fire("on_train_begin")
        run.steps(7)
        run.fire("on_train_end")
        assert "7/20" in run.bar()

    def test_it_begins_at_the_step_of_a_resumed_run(self, run):
        run.state.global_step = 10
        run.fire("on_train_begin")
        assert "10/20" in run.bar()
        run.steps(1)
        run.fire("on_train_end")
        assert "11/20" in run.bar()

    def test_it_is_drawn_rarely_however_fast_the_steps_are(self, run):
        run.state.max_steps = 20_000
        run.fire("on_train_begin")
        run.steps(20_000)
        assert run.bar().count("\r") < 200  # ten a second, also on a machine that stalls

    def test_no_thread_watches_it(self):
        outcome = subprocess.run(
            [sys.executable, "-c", COUNT_THREADS], capture_output=True, text=True
        )
        assert outcome.stdout.split() == ["1"], outcome.stderr

    def test_a_training_that_begins_again_gets_a_new_bar(self, run):
        run.fire("on_train_begin")
        first = run.callback.training_bar
        run.fire("on_train_begin")
        assert first.disable
        assert run.callback.training_bar is not first

    def test_a_run_of_unknown_length_has_a_bar_without_end(self, run):
        run.state.max_steps = 0
        run.fire("on_train_begin")
        run.steps(2)
        run.fire("on_train_end")
        assert "2it" in run.bar()

    def test_other_processes_show_nothing(self, run):
        run.state.is_world_process_zero = False
        run.fire("on_train_begin")
        run.steps(3)
        run.fire("on_log", logs={"loss": 1.0})
        run.fire("on_prediction_step", eval_dataloader=[1])
        run.fire("on_train_end")
        assert run.capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("hook", ["on_step_end", "on_train_end", "on_log", "on_evaluate"])
    def test_hooks_before_a_training_do_nothing(self, run, hook):
        run.state.global_step = 1
        run.fire(hook)
        assert run.capsys.readouterr() == ("", "")


class TestPredictionBar:
    def test_it_counts_the_batches_and_goes_with_the_evaluation(self, run):
        for _ in range(3):
            run.fire("on_prediction_step", eval_dataloader=range(3))
        bar = run.callback.prediction_bar
        run.fire("on_evaluate", metrics={})
        assert (bar.n, bar.total, run.callback.prediction_bar) == (3, 3, None)

    def test_it_goes_with_a_prediction(self, run):
        run.fire("on_prediction_step", eval_dataloader=range(3))
        run.fire("on_predict", metrics={})
        assert run.callback.prediction_bar is None

    def test_it_stays_on_the_screen_only_outside_of_a_training(self, run):
        run.fire("on_prediction_step", eval_dataloader=range(3))
        assert run.callback.prediction_bar.leave
        run.fire("on_evaluate")
        run.fire("on_train_begin")
        run.fire("on_prediction_step", eval_dataloader=range(3))
        assert not run.callback.prediction_bar.leave

    @pytest.mark.parametrize("loader", [None, iter(range(3))])
    def test_batches_of_unknown_number_have_no_bar(self, run, loader):
        run.fire("on_prediction_step", eval_dataloader=loader)
        assert run.callback.prediction_bar is None

    def test_it_is_closed_where_a_training_ends_within_an_evaluation(self, run):
        run.fire("on_train_begin")
        run.fire("on_prediction_step", eval_dataloader=range(3))
        run.fire("on_train_end")
        assert run.callback.prediction_bar is None


class TestLogs:
    @pytest.fixture
    def run(self, run):
        run.fire("on_train_begin")
        return run

    def test_floats_are_written_with_four_digits_and_all_else_as_it_is(self, run):
        run.fire("on_log", logs={"loss": 0.123456, "step": 12345678, "note": "text"})
        assert run.written() == "{'loss': '0.1235', 'step': 12345678, 'note': 'text'}"

    def test_total_flos_are_not_written_and_the_logs_left_as_they_are(self, run):
        logs = {"total_flos": 1e18, "loss": 0.123456, "text": "x" * 200}
        before = dict(logs)
        run.fire("on_log", logs=logs)
        assert "total_flos" not in run.written()
        assert logs == before

    def test_a_long_text_is_replaced_by_its_length_and_the_limit(self, run):
        run.fire("on_log", logs={"text": "x" * 101})
        shown = run.written()
        assert "xx" not in shown
        assert "101" in shown
        assert "100" in shown

    def test_a_text_of_just_the_limit_is_written(self, capsys):
        run = Run(capsys, max_str_len=3)
        run.fire("on_train_begin")
        run.fire("on_log", logs={"a": "xyz", "b": "long"})
        run.fire("on_train_end")
        assert (
            run.written() == "{'a': 'xyz', 'b': '[text of 4 characters, more than max_str_len=3]'}"
        )

    def test_a_tensor_is_not_turned_into_a_number(self, run):
        run.fire("on_log", logs={"loss": torch.zeros((), device="meta")})
        assert run.written().startswith("{'loss': tensor(")

    def test_no_logs_write_nothing(self, run):
        run.fire("on_log", logs=None)
        assert run.written() == ""

    def test_a_lone_evaluation_writes_nothing(self, run):
        run.fire("on_train_end")
        run.fire("on_log", logs={"eval_loss": 1.0})
        assert run.written() == ""


@pytest.mark.parametrize("value", [-1, 1.5, "100", None, True])
def test_a_limit_that_is_no_number_of_characters_is_refused(value):
    with pytest.raises(ConfigurationError, match="max_str_len is"):
        ProgressCallback(max_str_len=value)
