import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments import (
    HubStrategy,
    IntervalStrategy,
    SaveStrategy,
    SchedulerType,
    TrainingArguments,
)

IN_STEPS = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}


def refused(match: str, **values) -> None:
    with pytest.raises(ConfigurationError, match=match):
        TrainingArguments(**values)


class TestStrategies:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("logging_strategy", IntervalStrategy),
            ("eval_strategy", IntervalStrategy),
            ("save_strategy", SaveStrategy),
            ("lr_scheduler_type", SchedulerType),
            ("hub_strategy", HubStrategy),
        ],
    )
    def test_every_name_becomes_its_enum(self, name, kind):
        for member in kind:
            others = {"metric_for_best_model": "loss", "eval_strategy": "epoch"}
            if member is SchedulerType.COSINE_WITH_MIN_LR:
                others["lr_scheduler_kwargs"] = {"min_lr": 0.0}
            args = TrainingArguments(**(others | {name: str(member)}))
            assert getattr(args, name) is member

    @pytest.mark.parametrize("value", ["sometimes", None, False, 1])
    def test_any_other_value_is_refused_with_those_it_takes(self, value):
        refused(
            rf"eval_strategy is {value!r}; it takes one of 'no', 'steps', 'e", eval_strategy=value
        )


class TestIntervals:
    NAMES = ("logging_steps", "eval_steps", "save_steps", "warmup_steps")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_whole_float_becomes_an_int(self, name):
        value = getattr(TrainingArguments(**{name: 10.0}), name)
        assert (value, type(value)) == (10, int)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_share_stays_a_share(self, name):
        assert getattr(TrainingArguments(**{name: 0.5}), name) == 0.5

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("value", [10.5, -1, float("nan"), float("inf"), "10", True])
    def test_what_is_neither_is_refused(self, name, value):
        refused(rf"{name} is {value!r}; it takes", **{name: value})

    def test_logging_every_0_steps_is_refused(self):
        refused("logging_steps is 0; it takes a number above 0", logging_steps=0)

    def test_0_steps_are_taken_where_the_strategy_does_not_ask(self):
        assert TrainingArguments(logging_strategy="epoch", logging_steps=0).logging_steps == 0

    @pytest.mark.parametrize("missing", [None, 0])
    def test_evaluation_steps_fall_back_to_logging_steps(self, missing):
        args = TrainingArguments(eval_strategy="steps", eval_steps=missing, logging_steps=20)
        assert args.eval_steps == 20

    def test_evaluation_steps_without_logging_steps_to_fall_back_to_are_refused(self):
        refused(
            "eval_steps is None, which means logging_steps, and that is 0",
            eval_strategy="steps",
            logging_strategy="no",
            logging_steps=0,
        )

    @pytest.mark.parametrize(
        ("values", "steps"),
        [
            ({}, 0),
            ({"warmup_steps": 30}, 30),
            ({"warmup_steps": 0.07}, 7),
            ({"warmup_ratio": 0.25}, 25),
            ({"warmup_ratio": 1}, 1),
            ({"warmup_steps": 3, "warmup_ratio": 0.5}, 3),
        ],
    )
    def test_the_warm_up_is_a_number_of_steps_or_a_share(self, values, steps):
        assert TrainingArguments(**values).get_warmup_steps(100) == steps


class TestBestModel:
    @pytest.mark.parametrize(
        ("save", "evaluate"), [(20, 10), (10, 10), (0.4, 0.2), (0.3, 0.1), (0.14, 0.07), (0, 10)]
    )
    def test_saving_at_a_multiple_of_the_evaluations_is_taken(self, save, evaluate):
        TrainingArguments(**IN_STEPS, save_steps=save, eval_steps=evaluate)

    @pytest.mark.parametrize(
        ("save", "evaluate"), [(15, 10), (10, 20), (0.3, 0.2), (500, 0.5), (0.5, 10)]
    )
    def test_saving_at_other_steps_is_refused(self, save, evaluate):
        refused(
            rf"save_steps to be a multiple of eval_steps.*{save} and {evaluate}",
            **IN_STEPS,
            save_steps=save,
            eval_steps=evaluate,
        )

    @pytest.mark.parametrize(
        ("save", "evaluate"), [("steps", "no"), ("steps", "epoch"), ("no", "steps")]
    )
    def test_strategies_that_differ_are_refused(self, save, evaluate):
        refused(
            f"the same, but they are '{evaluate}' and '{save}'",
            load_best_model_at_end=True,
            save_strategy=save,
            eval_strategy=evaluate,
        )

    def test_saving_the_best_goes_with_any_evaluation(self):
        args = TrainingArguments(
            load_best_model_at_end=True, save_strategy="best", eval_strategy="epoch"
        )
        assert args.metric_for_best_model == "loss"

    def test_saving_the_best_without_a_metric_is_refused(self):
        refused("metric_for_best_model is None", save_strategy="best", eval_strategy="epoch")

    def test_saving_the_best_without_evaluations_is_refused(self):
        refused("nothing would ever be saved", save_strategy="best", metric_for_best_model="loss")

    @pytest.mark.parametrize(
        ("metric", "greater"),
        [("loss", False), ("eval_loss", False), ("accuracy", True), ("perplexity", True)],
    )
    def test_the_direction_follows_from_the_metrics_name(self, metric, greater):
        assert TrainingArguments(metric_for_best_model=metric).greater_is_better is greater

    def test_a_direction_that_is_given_is_kept(self):
        args = TrainingArguments(metric_for_best_model="perplexity", greater_is_better=False)
        assert args.greater_is_better is False

    def test_without_a_metric_there_is_no_direction(self):
        assert TrainingArguments().greater_is_better is None


class TestReportTo:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (None, []),
            ("none", []),
            (["none"], []),
            ([], []),
            ("all", ["all"]),
            (["all"], ["all"]),
            ("tensorboard", ["tensorboard"]),
            (("mlflow", "tensorboard"), ["mlflow", "tensorboard"]),
            (["mlflow", "mlflow"], ["mlflow"]),
        ],
    )
    def test_it_becomes_a_list_of_names(self, given, kept):
        assert TrainingArguments(report_to=given).report_to == kept

    @pytest.mark.parametrize(
        "value", [5, [5], [""], ["all", "wandb"], ["none", "wandb"], ["all", "none"], {"wandb"}]
    )
    def test_what_are_no_names_is_refused(self, value):
        refused("report_to is .*; it takes", report_to=value)


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("num_train_epochs", -1),
            ("max_steps", 1.5),
            ("max_steps", -2),
            ("per_device_train_batch_size", 0),
            ("per_device_eval_batch_size", 8.0),
            ("gradient_accumulation_steps", 0),
            ("eval_accumulation_steps", 0),
            ("learning_rate", "5e-5"),
            ("learning_rate", float("nan")),
            ("weight_decay", -0.1),
            ("adam_beta1", 1),
            ("adam_beta2", -0.5),
            ("adam_epsilon", -1),
            ("max_grad_norm", -1),
            ("warmup_ratio", 1.5),
            ("dataloader_num_workers", -1),
            ("seed", -1),
            ("seed", None),
            ("data_seed", 2**32),
            ("eval_delay", -1),
            ("save_total_limit", 0),
            ("log_level", "loud"),
            ("include_num_input_tokens_seen", "some"),
            ("bf16", "false"),
            ("do_eval", None),
            ("greater_is_better", "yes"),
            ("output_dir", 5),
            ("output_dir", b"x"),
            ("run_name", 5),
            ("metric_for_best_model", 5),
        ],
    )
    def test_a_value_out_of_range_or_of_the_wrong_kind_is_refused_by_name(self, name, value):
        refused(rf"^{name} is {value!r}; it takes .", **{name: value})

    def test_two_precisions_at_once_are_refused(self):
        refused("fp16 and bf16 are both True", fp16=True, bf16=True)

    def test_fetching_ahead_without_workers_is_refused(self):
        refused("dataloader_prefetch_factor is 2; .*workers", dataloader_prefetch_factor=2)

    def test_a_later_change_is_found_by_validate(self):
        args = TrainingArguments()
        args.learning_rate = -1.0
        with pytest.raises(ConfigurationError, match="learning_rate"):
            args.validate()

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([f.name for f in dataclasses.fields(TrainingArguments)]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.lists(st.text()),
            max_size=3,
        )
    )
    def test_any_values_are_taken_or_refused_as_a_matter_of_configuration(self, values):
        try:
            args = TrainingArguments(**values)
        except ConfigurationError:
            return
        assert json.loads(args.to_json_string()) == args.to_dict()
        args.validate()
