"""Options of the optimizer and its schedule: each bad one is an error that names those taken."""

from __future__ import annotations

from typing import Any

import pytest

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments import OptimizerNames, TrainingArguments


def refused(match: str, **values: Any) -> None:
    with pytest.raises(ConfigurationError, match=match):
        TrainingArguments(**values)


def test_an_optimizer_that_is_not_there_is_refused_with_those_that_are() -> None:
    names = ", ".join(repr(str(name)) for name in OptimizerNames)
    refused(f"optim is 'adafactor'; it takes one of {names}; pass any other", optim="adafactor")


@pytest.mark.parametrize(
    ("optim", "options", "match"),
    [
        ("sgd", "momentum", "it takes 'name=value,name=value'"),
        ("sgd", "alpha=1", "'sgd' has no 'alpha'; it takes momentum, dampening, nesterov"),
        ("sgd", "momentum=much", "momentum is 'much'; it takes a number"),
        ("sgd", "momentum=-1", "momentum is '-1'; it takes a finite number from 0 on"),
        ("sgd", "nesterov=perhaps", "nesterov is 'perhaps'; it takes true or false"),
        ("sgd", "nesterov=true", "nesterov is True; it takes a momentum above 0"),
        ("adamw_torch", "eps=1", "'adamw_torch' has no 'eps'; it takes no options"),
    ],
)
def test_a_bad_option_of_an_optimizer_is_refused(optim: str, options: str, match: str) -> None:
    refused(match, optim=optim, optim_args=options)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("linear", {"power": 2}, "'linear' has no 'power'; it takes no options"),
        ("cosine", {"power": 2}, "'cosine' has no 'power'; it takes num_cycles"),
        ("cosine", {"num_cycles": "2"}, "num_cycles is '2'; it takes a number"),
        ("cosine", {"num_cycles": -1}, "num_cycles is -1; it takes a finite number from 0 on"),
        ("cosine", "many", "lr_scheduler_kwargs is 'many'; it takes a dict, its JSON, or None"),
        ("cosine", [1], r"lr_scheduler_kwargs is \[1\]; it takes a dict"),
        ("inverse_sqrt", {"timescale": 0}, "timescale is 0; it takes a number above 0"),
        ("polynomial", {"lr_end": 1}, "lr_end is 1; it takes a number below the learning_rate"),
        ("cosine_with_min_lr", {}, "either min_lr or min_lr_rate"),
        ("cosine_with_min_lr", {"min_lr": 0, "min_lr_rate": 0}, "either min_lr or min_lr_rate"),
        ("reduce_lr_on_plateau", {"mode": "up"}, "mode is 'up'; it takes 'min' or 'max'"),
    ],
)
def test_a_bad_option_of_a_schedule_is_refused(kind: str, options: Any, match: str) -> None:
    refused(match, lr_scheduler_type=kind, lr_scheduler_kwargs=options)


def test_a_schedule_that_follows_evaluations_is_refused_without_them() -> None:
    refused("eval_strategy is 'no'; it takes", lr_scheduler_type="reduce_lr_on_plateau")


@pytest.mark.parametrize("old", [None, True, False])
@pytest.mark.parametrize("new", [None, True, False])
def test_the_newer_name_of_checkpointing_wins(old: bool | None, new: bool | None) -> None:
    args = TrainingArguments(gradient_checkpointing=old, activation_checkpointing=new)
    expected = bool(old if new is None else new)
    assert args.activation_checkpointing is args.gradient_checkpointing is expected


@pytest.mark.parametrize("value", ["loss", ["losses"], [1], None])
def test_what_metrics_receive_is_a_list_of_two_names(value: Any) -> None:
    if value is None:
        assert TrainingArguments(include_for_metrics=value).include_for_metrics == []
    else:
        refused("include_for_metrics|losses", include_for_metrics=value)


@pytest.mark.parametrize("value", ["labels", [1], [""]])
def test_the_names_of_labels_are_a_list(value: Any) -> None:
    refused("label_names is .*; it takes a list of names", label_names=value)
