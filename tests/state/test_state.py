import copy
import dataclasses
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._compiled.shared import Shared
from asynccb._ground.exceptions import DefinitionError, FrozenError
from asynccb._state.control import TrainerControl
from asynccb._state.snapshot import ChangeTracker, HistoryView, snapshot
from asynccb._state.trainer_state import SLOW_FIELDS, STATE_FIELDS, ExportableState, TrainerState
from asynccb.arguments import TrainingArguments


class Counter(ExportableState):
    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.count = start

    def state(self):
        return {"args": {"start": self.start}, "attributes": {"count": self.count}}


class Gauge(Counter):
    pass


class TestFields:
    def test_fields_and_defaults_are_those_of_transformers(self):
        from transformers import TrainerState as Theirs

        assert dataclasses.asdict(TrainerState()) == dataclasses.asdict(Theirs())

    def test_history_and_callback_states_are_not_shared_between_states(self):
        one, other = TrainerState(), TrainerState()
        one.log_history.append({"loss": 1.0})
        one.stateful_callbacks["A"] = {}
        assert other.log_history == []
        assert other.stateful_callbacks == {}


class TestExportedStates:
    def test_a_list_of_callbacks_becomes_their_states_by_class_name(self):
        state = TrainerState(stateful_callbacks=[TrainerControl(), Counter(3)])
        assert list(state.stateful_callbacks) == ["TrainerControl", "Counter"]
        assert state.stateful_callbacks["Counter"] == Counter(3).state()

    def test_several_callbacks_of_one_class_become_a_list_in_order(self):
        state = TrainerState(stateful_callbacks=[Counter(1), Gauge(9), Counter(2), Counter(3)])
        assert [s["args"]["start"] for s in state.stateful_callbacks["Counter"]] == [1, 2, 3]
        assert state.stateful_callbacks["Gauge"]["args"] == {"start": 9}

    def test_a_dict_of_states_is_kept_as_it_is(self):
        states = {"Counter": {"args": {}, "attributes": {}}}
        assert TrainerState(stateful_callbacks=states).stateful_callbacks is states

    def test_an_object_that_exports_no_state_is_refused(self):
        with pytest.raises(DefinitionError, match=r"inherit from asynccb\.ExportableState"):
            TrainerState(stateful_callbacks=[object()])

    def test_from_state_builds_from_the_arguments_and_sets_the_attributes(self):
        counter = Counter.from_state({"args": {"start": 2}, "attributes": {"count": 7}})
        assert (counter.start, counter.count) == (2, 7)

    def test_a_class_without_state_says_that_it_must_define_it(self):
        with pytest.raises(NotImplementedError, match=r"Bare .*must define state"):
            type("Bare", (ExportableState,), {})().state()


class TestComputeSteps:
    def intervals(self, max_steps=100, **values):
        state = TrainerState()
        state.compute_steps(TrainingArguments(**values), max_steps)
        return state.logging_steps, state.eval_steps, state.save_steps

    def test_shares_become_steps(self):
        shares = {"logging_steps": 0.1, "eval_steps": 0.2, "save_steps": 0.5}
        assert self.intervals(**shares) == (10, 20, 50)

    def test_whole_numbers_stay(self):
        assert self.intervals(logging_steps=7, eval_steps=8, save_steps=9) == (7, 8, 9)

    def test_a_share_of_a_step_is_rounded_up(self):
        assert self.intervals(max_steps=3, logging_steps=0.1)[0] == 1

    def test_an_interval_that_is_not_set_leaves_the_states_own(self):
        assert self.intervals(eval_steps=None)[1] == 500

    def test_0_stays_0(self):
        assert self.intervals(save_steps=0)[2] == 0

    @pytest.mark.parametrize("percent", range(1, 100))
    def test_percents_of_100_steps_are_exact(self, percent):
        assert self.intervals(logging_steps=percent / 100)[0] == percent


class TestTrainingReferences:
    def trainer(self, **values):
        args = SimpleNamespace(local_process_index=0, process_index=0, **values)
        return SimpleNamespace(args=args)

    def test_lengths_and_rank_are_set(self):
        trainer = self.trainer()
        trainer.args.process_index = 1
        state = TrainerState()
        state.init_training_references(trainer, 30, 2)
        assert (state.max_steps, state.num_train_epochs) == (30, 2)
        assert state.is_local_process_zero
        assert not state.is_world_process_zero

    def test_intervals_are_left_alone(self):
        state = TrainerState(logging_steps=3)
        state.init_training_references(self.trainer(), 30, 2)
        assert state.logging_steps == 3

    def test_a_search_trial_gives_its_name_and_parameters(self):
        trial = SimpleNamespace(number=4, params={"lr": 0.1})
        trainer = self.trainer()
        trainer.hp_name, trainer._trial = (lambda t: f"trial {t.number}"), trial
        state = TrainerState()
        state.init_training_references(trainer, 1, 1, trial)
        assert (state.trial_name, state.trial_params) == ("trial 4", {"lr": 0.1})


class TestSnapshot:
    def test_it_shows_every_field_as_it_was(self):
        state = TrainerState(epoch=0.5, global_step=3, best_metric=0.1, log_history=[{"loss": 1.0}])
        frozen = snapshot(state)
        assert {n: getattr(frozen, n) for n in STATE_FIELDS} == vars(state)

    def test_it_does_not_change_when_the_run_goes_on(self):
        state = TrainerState(global_step=3, log_history=[{"loss": 1.0}])
        frozen = snapshot(state)
        state.global_step = 4
        state.best_metric = 0.5
        state.log_history.append({"loss": 0.5})
        assert (frozen.global_step, frozen.best_metric) == (3, None)
        assert frozen.log_history == [{"loss": 1.0}]

    def test_it_is_a_trainer_state(self):
        assert isinstance(snapshot(TrainerState()), TrainerState)

    @pytest.mark.parametrize("name", [*STATE_FIELDS, "something_new"])
    def test_writing_to_it_is_refused_by_name(self, name):
        with pytest.raises(
            FrozenError, match=rf"state\.{name} .*step 5.*attribute of the callback"
        ):
            setattr(snapshot(TrainerState(global_step=5)), name, 1)

    def test_deleting_a_field_is_refused(self):
        with pytest.raises(FrozenError):
            del snapshot(TrainerState()).epoch

    def test_it_saves_to_a_file_as_the_state_would(self, tmp_path):
        state = TrainerState(global_step=3, log_history=[{"loss": 1.0}])
        snapshot(state).save_to_json(str(tmp_path / "state.json"))
        assert TrainerState.load_from_json(str(tmp_path / "state.json")) == state

    @pytest.mark.parametrize(
        "duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
    )
    def test_a_copy_is_frozen_with_the_same_values(self, duplicate):
        twin = duplicate(snapshot(TrainerState(global_step=3, log_history=[{"loss": 1.0}])))
        assert (twin.global_step, twin.log_history) == (3, [{"loss": 1.0}])
        with pytest.raises(FrozenError):
            twin.global_step = 4


entries = st.lists(st.fixed_dictionaries({"loss": st.integers()}))


class TestHistoryView:
    @settings(deadline=None)
    @given(entries, st.data())
    def test_it_is_the_beginning_of_the_history(self, history, data):
        length = data.draw(st.integers(0, len(history)))
        view = HistoryView(history, length)
        assert view == history[:length]
        assert history[:length] == view
        assert list(view) == history[:length]
        assert len(view) == length

    @settings(deadline=None)
    @given(entries, st.data())
    def test_it_is_indexed_and_sliced_as_a_list(self, history, data):
        length = data.draw(st.integers(0, len(history)))
        view = HistoryView(history, length)
        part = data.draw(st.slices(length))
        assert view[part] == history[:length][part]
        for index in range(-length, length):
            assert view[index] == history[:length][index]

    @pytest.mark.parametrize("index", [2, -3])
    def test_what_came_later_is_out_of_range(self, index):
        with pytest.raises(IndexError):
            HistoryView([{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}], 2)[index]

    def test_it_cannot_be_written_to(self):
        view = HistoryView([{"loss": 1.0}], 1)
        with pytest.raises(TypeError):
            view[0] = {}
        assert not hasattr(view, "append")

    def test_it_has_no_hash_as_a_list_has_none(self):
        with pytest.raises(TypeError):
            hash(HistoryView([], 0))

    def test_it_differs_from_what_is_no_history(self):
        assert HistoryView([], 0) != ""


class TestChangeTracker:
    def test_the_first_call_returns_all_slow_fields(self):
        state = TrainerState(max_steps=9)
        assert ChangeTracker(Shared()).changes(state) == {n: getattr(state, n) for n in SLOW_FIELDS}

    def test_nothing_changed_is_none(self):
        tracker, state = ChangeTracker(Shared()), TrainerState()
        tracker.changes(state)
        assert tracker.changes(state) is None

    def test_steps_epochs_and_logs_are_no_changes(self):
        tracker, state = ChangeTracker(Shared()), TrainerState()
        tracker.changes(state)
        state.global_step, state.epoch = 5, 0.5
        state.log_history.append({"loss": 1.0})
        assert tracker.changes(state) is None

    def test_only_what_changed_is_returned_and_only_once(self):
        tracker, state = ChangeTracker(Shared()), TrainerState()
        tracker.changes(state)
        state.best_metric, state.best_global_step = 0.5, 7
        assert tracker.changes(state) == {"best_metric": 0.5, "best_global_step": 7}
        assert tracker.changes(state) is None

    def test_a_metric_that_stays_nan_does_not_change_again_and_again(self):
        tracker, state = ChangeTracker(Shared()), TrainerState(best_metric=float("nan"))
        tracker.changes(state)
        assert tracker.changes(state) is None

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["max_steps", "eval_steps"]), st.integers(0, 3))))
    def test_the_changes_together_rebuild_the_fields(self, writes):
        tracker, state = ChangeTracker(Shared()), TrainerState()
        replica = dict(tracker.changes(state) or {})
        for name, value in writes:
            setattr(state, name, value)
            replica.update(tracker.changes(state) or {})
        assert replica == {n: getattr(state, n) for n in SLOW_FIELDS}
