import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._control import FLAGS, FrozenControl, TrainerControl, pack_flags
from asynccb._exceptions import UndecidedError

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
