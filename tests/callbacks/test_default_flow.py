import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments import TrainingArguments
from asynccb.callbacks import DefaultFlowCallback

QUIET = {"logging_strategy": "no", "save_strategy": "no"}


def asked(hook: str, state: TrainerState, **values) -> set[str]:
    """Return the flags that the hook sets, by their short names."""
    control = TrainerControl()
    args = TrainingArguments(**(QUIET | values))
    assert getattr(DefaultFlowCallback(), hook)(args, state, control) is control
    return {name.removeprefix("should_") for name, value in vars(control).items() if value}


def at_step(step: int, *, max_steps: int = 100, intervals: int = 500, **values) -> set[str]:
    state = TrainerState(
        global_step=step,
        max_steps=max_steps,
        logging_steps=intervals,
        eval_steps=intervals,
        save_steps=intervals,
    )
    return asked("on_step_end", state, **values)


def at_epoch(epoch: float, **values) -> set[str]:
    return asked("on_epoch_end", TrainerState(epoch=epoch), **values)


class TestStepEnd:
    ALL_STEPS = pytest.mark.parametrize(
        ("values", "flag"),
        [
            ({"logging_strategy": "steps"}, "log"),
            ({"eval_strategy": "steps"}, "evaluate"),
            ({"save_strategy": "steps"}, "save"),
        ],
    )

    @ALL_STEPS
    def test_an_action_in_steps_is_asked_for_at_multiples_of_its_interval(self, values, flag):
        due = [s for s in range(1, 12) if at_step(s, intervals=5, **values) == {flag}]
        assert due == [5, 10]

    @ALL_STEPS
    def test_an_interval_of_0_is_never_due(self, values, flag):
        assert at_step(10, intervals=0, **values) == set()

    @pytest.mark.parametrize("strategy", ["no", "epoch"])
    def test_other_strategies_ask_for_nothing(self, strategy):
        values = {f"{name}_strategy": strategy for name in ("logging", "eval", "save")}
        assert at_step(10, intervals=5, **values) == set()

    @pytest.mark.parametrize("strategy", ["no", "steps", "epoch"])
    def test_the_first_step_is_logged_under_any_strategy_if_so_told(self, strategy):
        values = {"logging_strategy": strategy, "logging_first_step": True}
        assert at_step(1, **values) == {"log"}
        assert at_step(2, **values) == set()

    def test_intervals_come_from_the_state_and_not_from_the_arguments(self):
        assert at_step(3, intervals=3, logging_strategy="steps", logging_steps=7) == {"log"}

    @pytest.mark.parametrize(("step", "flags"), [(5, set()), (10, {"evaluate"})])
    def test_evaluations_wait_for_the_delay(self, step, flags):
        assert at_step(step, intervals=5, eval_strategy="steps", eval_delay=6) == flags

    def test_a_delay_that_was_set_to_none_is_0(self):
        args = TrainingArguments(eval_strategy="steps", logging_strategy="no", save_strategy="no")
        args.eval_delay = None
        control = TrainerControl()
        state = TrainerState(global_step=5, eval_steps=5)
        DefaultFlowCallback().on_step_end(args, state, control)
        assert control.should_evaluate

    def test_flags_that_are_set_already_stay(self):
        control = TrainerControl(should_save=True)
        args = TrainingArguments(**QUIET)
        DefaultFlowCallback().on_step_end(args, TrainerState(global_step=1), control)
        assert control == TrainerControl(should_save=True)


class TestLastStep:
    @pytest.mark.parametrize(("step", "flags"), [(99, set()), (100, {"training_stop"})])
    def test_the_run_stops_at_its_last_step(self, step, flags):
        assert at_step(step) == flags

    def test_it_is_evaluated_and_saved_where_those_go_by_steps(self):
        flags = at_step(
            100,
            intervals=33,
            eval_strategy="steps",
            save_strategy="steps",
            logging_strategy="steps",
        )
        assert flags == {"training_stop", "evaluate", "save"}

    def test_it_is_not_evaluated_before_the_delay(self):
        assert at_step(100, eval_strategy="steps", eval_delay=101) == {"training_stop"}

    def test_a_run_of_unknown_length_goes_on(self):
        assert at_step(10, max_steps=0) == set()


class TestEpochEnd:
    def test_actions_by_epoch_are_asked_for(self):
        values = {f"{name}_strategy": "epoch" for name in ("logging", "eval", "save")}
        assert at_epoch(1.0, **values) == {"log", "evaluate", "save"}

    def test_actions_by_steps_are_not(self):
        values = {f"{name}_strategy": "steps" for name in ("logging", "eval", "save")}
        assert at_epoch(1.0, **values) == set()

    def test_saving_the_best_is_not_asked_for_here(self):
        values = {"metric_for_best_model": "loss", "eval_strategy": "epoch"}
        assert at_epoch(1.0, save_strategy="best", **values) == {"evaluate"}

    @pytest.mark.parametrize(("epoch", "flags"), [(1.0, set()), (2.0, {"evaluate"})])
    def test_evaluations_wait_for_the_delay_in_epochs(self, epoch, flags):
        assert at_epoch(epoch, eval_strategy="epoch", eval_delay=2) == flags


@settings(deadline=None, max_examples=300)
@given(
    step=st.integers(1, 40),
    max_steps=st.integers(1, 40),
    intervals=st.integers(1, 12),
    delay=st.integers(0, 40),
    first=st.booleans(),
    strategies=st.tuples(*[st.sampled_from(["no", "steps", "epoch"])] * 3),
)
def test_every_step_is_decided_as_in_transformers(
    step, max_steps, intervals, delay, first, strategies
):
    from transformers import DefaultFlowCallback as Theirs
    from transformers import TrainerControl as TheirControl

    log, evaluate, save = strategies
    args = TrainingArguments(
        logging_strategy=log,
        eval_strategy=evaluate,
        save_strategy=save,
        eval_delay=delay,
        logging_first_step=first,
    )
    state = TrainerState(
        global_step=step,
        epoch=step / 4,
        max_steps=max_steps,
        logging_steps=intervals,
        eval_steps=intervals,
        save_steps=intervals,
    )
    ours, theirs = TrainerControl(), TheirControl()
    for hook in ("on_step_end", "on_epoch_end"):
        getattr(DefaultFlowCallback(), hook)(args, state, ours)
        getattr(Theirs(), hook)(args, state, theirs)
        assert ours.state() == theirs.state()
