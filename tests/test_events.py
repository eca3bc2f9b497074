import pytest

from asynccb._ground.events import EVENTS, RESETS, TERMINAL, Event, closest, parse_event
from asynccb._ground.exceptions import UnknownEventError
from asynccb._state.control import FLAGS


def test_there_are_the_sixteen_events_of_transformers_under_its_names():
    from transformers import TrainerCallback

    theirs = {name for name in vars(TrainerCallback) if name.startswith("on_")}
    assert set(EVENTS) == theirs
    assert len(EVENTS) == 16


def test_the_numbers_of_events_are_those_that_journals_hold():
    assert [str(event) for event in EVENTS] == [
        "on_init_end",
        "on_train_begin",
        "on_train_end",
        "on_epoch_begin",
        "on_epoch_end",
        "on_step_begin",
        "on_pre_optimizer_step",
        "on_optimizer_step",
        "on_substep_end",
        "on_step_end",
        "on_evaluate",
        "on_predict",
        "on_save",
        "on_log",
        "on_prediction_step",
        "on_push_begin",
    ]


def test_events_reset_the_flags_that_they_do_in_transformers():
    from transformers import TrainerControl, TrainingArguments
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

    args = TrainingArguments(report_to="none")
    for event in EVENTS:
        handler = CallbackHandler([DefaultFlowCallback()], None, None, None, None)
        handler.remove_callback(DefaultFlowCallback)
        control = TrainerControl(**dict.fromkeys(FLAGS, True))
        extra = {"on_log": ({},), "on_evaluate": ({},), "on_predict": ({},)}.get(event, ())
        getattr(handler, event)(args, None, control, *extra)
        cleared = {flag for flag in FLAGS if not getattr(control, flag)}
        assert cleared == set(RESETS.get(event, ())), event


def test_events_that_reset_a_flag_name_flags_that_exist():
    assert {flag for flags in RESETS.values() for flag in flags} == set(FLAGS)


def test_events_that_end_a_run_or_save_it_are_never_dropped():
    assert {Event.TRAIN_END, Event.SAVE, Event.EVALUATE} <= TERMINAL
    assert Event.STEP_END not in TERMINAL


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_found_by_its_name(event):
    assert parse_event(str(event)) is event


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("on_step_ended", "on_step_end"),
        ("on_train_start", "on_train_begin"),
        ("on_batch_end", "on_step_end"),
        ("on_evaluation_end", "on_evaluate"),
    ],
)
def test_an_unknown_event_is_refused_with_the_nearest_one(name, near):
    with pytest.raises(UnknownEventError, match=rf"no event '{name}' \(did you mean '{near}'\?\)"):
        parse_event(name)


def test_an_event_that_resembles_none_gets_no_suggestion():
    assert closest("completely_different") == ""


@pytest.mark.parametrize("nonsense", [None, 7, "", b"on_log"])
def test_an_event_that_is_no_name_is_refused(nonsense):
    with pytest.raises(UnknownEventError):
        parse_event(nonsense)
