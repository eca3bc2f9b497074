import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks import EarlyStoppingCallback


def arguments(metric: str = "loss", **values) -> TrainingArguments:
    defaults = {
        "metric_for_best_model": metric,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
    }
    return TrainingArguments(**(defaults | values))


def stops_at(values: list[float], metric: str = "loss", **settings) -> int | None:
    """Evaluate as a trainer does; return the number of the evaluation that asked for the stop."""
    args, state, control = arguments(metric), TrainerState(global_step=1), TrainerControl()
    callback = EarlyStoppingCallback(**settings)
    callback.on_train_begin(args, state, control)
    for number, value in enumerate(values, 1):
        callback.on_evaluate(args, state, control, metrics={f"eval_{metric}": value})
        if control.should_training_stop:
            return number
        best, greater = state.best_metric, args.greater_is_better
        if best is None or (value > best if greater else value < best):
            state.best_metric = value
    return None


class TestCounting:
    def test_a_run_that_gets_better_goes_on(self):
        assert stops_at([3.0, 2.0, 1.0]) is None

    def test_the_first_evaluation_without_improvement_stops_by_default(self):
        assert stops_at([3.0, 2.0, 2.5]) == 3

    def test_patience_counts_evaluations_in_a_row(self):
        values = [1.0, 2.0, 0.5, 2.0, 2.0]
        assert stops_at(values, early_stopping_patience=2) == 5

    def test_an_equal_value_is_no_improvement(self):
        assert stops_at([1.0, 1.0]) == 2

    def test_nan_is_no_improvement_not_even_at_first(self):
        assert stops_at([1.0, math.nan]) == 2
        assert stops_at([math.nan]) == 1

    def test_greater_is_better_for_a_metric_that_is_no_loss(self):
        assert stops_at([0.5, 0.6, 0.7], "accuracy") is None
        assert stops_at([0.5, 0.4], "accuracy") == 2

    def test_an_improvement_within_the_threshold_is_none(self):
        assert stops_at([1.0, 0.75], early_stopping_threshold=0.25) == 2
        assert stops_at([1.0, 0.5], early_stopping_threshold=0.25) is None

    def test_a_threshold_of_none_is_0(self):
        assert stops_at([1.0, 0.9], early_stopping_threshold=None) is None

    def test_a_metric_may_be_named_with_its_prefix(self):
        args, control = arguments("eval_loss"), TrainerControl()
        callback, state = EarlyStoppingCallback(), TrainerState(best_metric=0.5)
        callback.on_evaluate(args, state, control, metrics={"eval_loss": 1.0})
        assert control.should_training_stop

    def test_a_metric_may_be_a_tensor(self):
        assert stops_at([torch.tensor(1.0), torch.tensor(2.0)]) == 2

    @pytest.mark.parametrize(
        ("value", "threshold", "counter"), [(0.8, 0.0, 4), (0.95, 0.0, 0), (0.95, 0.1, 4)]
    )
    def test_check_metric_value_counts_or_begins_anew(self, value, threshold, counter):
        callback = EarlyStoppingCallback(9, threshold)
        callback.early_stopping_patience_counter = 3
        state = TrainerState(best_metric=0.9)
        callback.check_metric_value(arguments("accuracy"), state, TrainerControl(), value)
        assert callback.early_stopping_patience_counter == counter

    @settings(deadline=None)
    @given(
        values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=12),
        patience=st.integers(1, 4),
        threshold=st.sampled_from([0.0, 0.15, 0.25]),
        metric=st.sampled_from(["loss", "accuracy"]),
    )
    def test_any_run_stops_where_transformers_stops_it(self, values, patience, threshold, metric):
        from transformers import EarlyStoppingCallback as Theirs
        from transformers import TrainerControl as TheirControl

        ours = stops_at(
            values, metric, early_stopping_patience=patience, early_stopping_threshold=threshold
        )
        callback, control = Theirs(patience, threshold), TheirControl()
        args, state, theirs = arguments(metric), SimpleNamespace(best_metric=None), None
        for number, value in enumerate(values, 1):
            callback.on_evaluate(args, state, control, {f"eval_{metric}": value})
            if control.should_training_stop:
                theirs = number
                break
            if state.best_metric is None or (value > state.best_metric) == args.greater_is_better:
                state.best_metric = value
        assert ours == theirs


class TestMissingMetric:
    def test_an_evaluation_without_the_metric_is_not_counted(self):
        callback, control = EarlyStoppingCallback(), TrainerControl()
        callback.on_evaluate(arguments(), TrainerState(), control, metrics={"eval_b_loss": 1.0})
        assert not control.should_training_stop
        assert callback.early_stopping_patience_counter == 0

    def test_it_is_said_once_a_run_with_what_there_was(self, caplog):
        callback, control = EarlyStoppingCallback(), TrainerControl()
        for _ in range(3):
            callback.on_evaluate(arguments(), TrainerState(), control, metrics={"eval_b_loss": 1.0})
        [message] = caplog.messages
        assert "eval_loss" in message
        assert "eval_b_loss" in message

    def test_no_metrics_at_all_are_not_counted(self):
        control = TrainerControl()
        EarlyStoppingCallback().on_evaluate(arguments(), TrainerState(), control)
        assert not control.should_training_stop


class TestTrainBegin:
    def begin(self, callback=None, step=0, **values):
        callback = callback or EarlyStoppingCallback()
        state = TrainerState(global_step=step)
        callback.on_train_begin(arguments(**values), state, TrainerControl())
        return callback

    def test_a_missing_metric_is_refused(self):
        with pytest.raises(ConfigurationError, match="needs metric_for_best_model"):
            self.begin(metric=None, load_best_model_at_end=False)

    def test_a_run_without_evaluations_is_refused(self):
        with pytest.raises(ConfigurationError, match="eval_strategy is 'no'"):
            self.begin(eval_strategy="no", load_best_model_at_end=False)

    def test_a_run_that_ends_with_the_last_model_is_warned_of(self, caplog):
        self.begin(load_best_model_at_end=False)
        assert "load_best_model_at_end" in caplog.text

    def test_a_run_that_loads_the_best_model_is_not(self, caplog):
        self.begin()
        assert not caplog.messages

    @pytest.mark.parametrize(("step", "counter"), [(0, 0), (10, 3)])
    def test_the_counter_begins_anew_but_for_a_resumed_run(self, step, counter):
        callback = EarlyStoppingCallback(5)
        callback.early_stopping_patience_counter = 3
        assert self.begin(callback, step).early_stopping_patience_counter == counter


class TestState:
    def test_it_has_the_form_that_transformers_saves(self):
        from transformers import EarlyStoppingCallback as Theirs

        assert EarlyStoppingCallback(5, 0.2).state() == Theirs(5, 0.2).state()

    def test_a_callback_comes_back_from_its_state_with_its_counter(self):
        callback = EarlyStoppingCallback(5, 0.2)
        callback.early_stopping_patience_counter = 2
        assert EarlyStoppingCallback.from_state(callback.state()).state() == callback.state()


class TestSettings:
    @pytest.mark.parametrize("patience", [0, -1, 1.5, "2", None, True])
    def test_a_patience_that_is_no_number_of_evaluations_is_refused(self, patience):
        with pytest.raises(ConfigurationError, match=rf"early_stopping_patience is {patience!r}"):
            EarlyStoppingCallback(patience)

    @pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf, "0.1"])
    def test_a_threshold_that_is_no_distance_is_refused(self, threshold):
        with pytest.raises(ConfigurationError, match=rf"early_stopping_threshold is {threshold!r}"):
            EarlyStoppingCallback(1, threshold)
