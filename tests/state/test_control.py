import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import UndecidedError
from asynccb._state.control import (
    FLAGS,
    NO_OPINION,
    Decision,
    FrozenControl,
    PrivateControl,
    TrainerControl,
    combine,
    merge,
    pack_flags,
    write_flags,
)

flags = st.fixed_dictionaries(dict.fromkeys(FLAGS, st.booleans()))


def all_set() -> TrainerControl:
    return TrainerControl(**dict.fromkeys(FLAGS, True))


def set_flags(control: TrainerControl) -> set[str]:
    return {flag for flag in FLAGS if getattr(control, flag)}


def test_every_flag_is_false_at_first():
    assert set_flags(TrainerControl()) == set()


def test_a_new_training_clears_the_stop_of_the_training_only():
    control = all_set()
    control._new_training()
    assert set_flags(control) == set(FLAGS) - {"should_training_stop"}


def test_a_new_epoch_clears_the_stop_of_the_epoch_only():
    control = all_set()
    control._new_epoch()
    assert set_flags(control) == set(FLAGS) - {"should_epoch_stop"}


def test_a_new_step_clears_save_evaluate_and_log():
    control = all_set()
    control._new_step()
    assert set_flags(control) == {"should_training_stop", "should_epoch_stop"}


def test_the_state_has_the_form_that_transformers_saves():
    from transformers import TrainerControl as Theirs

    ours, theirs = TrainerControl(should_save=True), Theirs(should_save=True)
    assert ours.state() == theirs.state()


@settings(deadline=None)
@given(flags)
def test_a_control_comes_back_from_its_state(values):
    control = TrainerControl(**values)
    assert TrainerControl.from_state(control.state()) == control


@settings(deadline=None)
@given(flags)
def test_a_frozen_control_shows_the_flags_that_were_packed(values):
    frozen = FrozenControl(pack_flags(TrainerControl(**values)))
    assert {flag: getattr(frozen, flag) for flag in FLAGS} == values


@settings(deadline=None)
@given(flags)
def test_packing_a_frozen_control_gives_the_same_bits(values):
    bits = pack_flags(TrainerControl(**values))
    assert pack_flags(FrozenControl(bits)) == bits


@pytest.mark.parametrize("flag", FLAGS)
def test_writing_to_a_frozen_control_says_what_to_do_instead(flag):
    with pytest.raises(UndecidedError, match=rf"control\.{flag}.*@asynccb\.decides.*plain `def`"):
        setattr(FrozenControl(0), flag, True)


@pytest.mark.parametrize("flag", FLAGS)
def test_deleting_a_flag_of_a_frozen_control_is_refused(flag):
    frozen = FrozenControl(31)
    with pytest.raises(UndecidedError):
        delattr(frozen, flag)
    assert getattr(frozen, flag) is True


def test_a_frozen_control_cannot_be_reset():
    with pytest.raises(UndecidedError):
        FrozenControl(31)._new_step()


def test_a_frozen_control_is_a_control():
    assert isinstance(FrozenControl(0), TrainerControl)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_of_a_frozen_control_is_frozen_with_the_same_flags(duplicate):
    twin = duplicate(FrozenControl(5))
    assert pack_flags(twin) == 5
    with pytest.raises(UndecidedError):
        twin.should_save = True


opinions = st.builds(Decision, *[st.sampled_from([None, True, False])] * len(FLAGS))


@settings(deadline=None)
@given(flags, st.lists(opinions))
def test_merging_equals_running_the_callbacks_one_after_another(values, decisions):
    control = TrainerControl(**values)
    before = pack_flags(control)
    for decision in decisions:
        for name, value in decision.opinions.items():
            setattr(control, name, value)
    assert merge(before, decisions) == pack_flags(control)


@settings(deadline=None)
@given(st.integers(0, 31), st.lists(opinions), st.lists(opinions))
def test_merging_in_two_parts_equals_merging_at_once(before, first, second):
    assert merge(merge(before, first), second) == merge(before, first + second)
    assert combine([combine(first), combine(second)]) == combine(first + second)


@settings(deadline=None)
@given(st.integers(0, 31), st.integers(0, 31))
def test_the_difference_of_two_controls_makes_one_of_the_other(before, after):
    assert merge(before, [Decision.between(before, after)]) == after


@settings(deadline=None)
@given(st.integers(0, 31), opinions)
def test_no_opinion_changes_nothing(before, decision):
    assert merge(before, [NO_OPINION]) == before
    assert combine([decision, NO_OPINION]) == decision


@settings(deadline=None)
@given(flags, st.lists(opinions))
def test_writing_decisions_to_a_control_leaves_the_merged_flags(values, decisions):
    control = TrainerControl(**values)
    merged = merge(pack_flags(control), decisions)
    write_flags(control, decisions)
    assert pack_flags(control) == merged


@settings(deadline=None)
@given(st.integers(0, 511))
def test_a_private_control_has_the_flags_of_a_record_and_no_opinion(bits):
    control = PrivateControl(bits)
    assert pack_flags(control) == bits & 31
    assert Decision.of(bits & 31, control) == NO_OPINION


@settings(deadline=None)
@given(st.integers(0, 31), st.lists(st.tuples(st.sampled_from(FLAGS), st.booleans())))
def test_asking_for_a_flag_counts_though_it_is_up_and_refusing_one_only_where_it_is(before, writes):
    control = PrivateControl(before)
    for name, value in writes:
        setattr(control, name, value)
    decision = Decision.of(before, control)
    left = dict(writes)
    for bit, name in enumerate(FLAGS):
        was_up, asks = bool(before >> bit & 1), left.get(name)
        assert getattr(decision, name) is (asks if asks or (asks is False and was_up) else None)


def test_a_control_that_is_returned_is_compared_with_the_event():
    returned = TrainerControl(should_save=True, should_log=True)
    before = pack_flags(TrainerControl(should_save=True, should_evaluate=True))
    assert Decision.of(before, returned).opinions == {"should_evaluate": False, "should_log": True}


def test_a_copy_of_a_private_control_remembers_what_was_asked_for():
    control = PrivateControl(31)
    control.should_save = True
    assert Decision.of(31, copy.copy(control)).opinions == {"should_save": True}
