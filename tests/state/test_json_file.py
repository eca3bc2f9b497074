import json
import logging
import math
import os
import stat

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import StateFileError
from asynccb._state.trainer_state import TrainerState


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trainer_state.json"


def saved(path, **values) -> dict:
    TrainerState(**values).save_to_json(str(path))
    return json.loads(path.read_text(), parse_constant=lambda token: pytest.fail(token))


def load(path, text: str) -> TrainerState:
    path.write_text(text, encoding="utf-8")
    return TrainerState.load_from_json(str(path))


def fields_of(state) -> str:
    """As text, which compares NaN with NaN."""
    return json.dumps(vars(state), sort_keys=True)


class TestRoundTrip:
    def test_a_state_comes_back_equal(self, path):
        state = TrainerState(
            epoch=1.5, global_step=100, max_steps=200, best_metric=0.95, log_history=[{"step": 1}]
        )
        state.save_to_json(str(path))
        assert TrainerState.load_from_json(str(path)) == state

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )

    @settings(max_examples=50)  # it takes long to draw one
    @given(st.lists(st.dictionaries(st.text(), json_values), max_size=3))
    def test_any_history_comes_back_equal_from_strict_json(self, tmp_path_factory, history):
        path = tmp_path_factory.mktemp("state") / "trainer_state.json"
        assert saved(path, log_history=history)
        assert TrainerState.load_from_json(str(path)).log_history == history

    @settings(deadline=None)
    @given(st.floats())
    def test_any_float_comes_back_bit_by_bit_the_same_number(self, tmp_path_factory, value):
        path = tmp_path_factory.mktemp("state") / "trainer_state.json"
        saved(path, epoch=value)
        epoch = TrainerState.load_from_json(str(path)).epoch
        assert math.isnan(epoch) if math.isnan(value) else epoch.hex() == value.hex()

    def test_numbers_that_are_not_finite_are_written_by_name(self, path):
        tree = saved(path, best_metric=math.nan, log_history=[{"a": math.inf, "b": [-math.inf]}])
        assert tree["best_metric"] == {"$float": "NaN"}
        assert tree["log_history"] == [
            {"a": {"$float": "Infinity"}, "b": [{"$float": "-Infinity"}]}
        ]


class TestWriting:
    def test_the_file_is_indented_and_sorted_and_ends_with_a_newline(self, path):
        tree = saved(path, log_history=[{"b": 1, "a": 2}])
        assert path.read_text() == json.dumps(tree, indent=2, sort_keys=True) + "\n"

    def test_no_temporary_file_is_left(self, path):
        saved(path)
        assert os.listdir(path.parent) == [path.name]

    def test_an_old_file_is_replaced_and_not_written_into(self, path):
        saved(path, global_step=1)
        with path.open() as old:
            saved(path, global_step=2)
            assert json.load(old)["global_step"] == 1

    def test_a_write_that_fails_leaves_the_old_file_and_no_other(self, tmp_path):
        target = tmp_path / "a_directory"
        target.mkdir()
        with pytest.raises(OSError, match="a_directory"):
            TrainerState().save_to_json(str(target))
        assert os.listdir(tmp_path) == ["a_directory"]

    def test_a_directory_that_is_missing_is_an_error_of_the_file_system(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            TrainerState().save_to_json(str(tmp_path / "missing" / "state.json"))

    def test_the_file_gets_the_rights_of_any_new_file(self, path):
        other = path.with_name("other")
        other.touch()
        saved(path)
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


class TestOddValues:
    @pytest.mark.parametrize(
        ("value", "number"),
        [
            (torch.tensor(1.5), 1.5),
            (torch.tensor(1.5, requires_grad=True), 1.5),
            (torch.tensor(3), 3),
            (numpy.float32(0.5), 0.5),
            (numpy.float64(0.25), 0.25),
            (numpy.int64(7), 7),
            (numpy.bool_(True), True),
            (numpy.array(4.0), 4.0),
            (torch.tensor(math.nan), {"$float": "NaN"}),
        ],
        ids=repr,
    )
    def test_a_scalar_of_torch_or_numpy_is_saved_as_its_number(self, path, caplog, value, number):
        assert saved(path, log_history=[{"x": value}])["log_history"] == [{"x": number}]
        assert not caplog.records

    @pytest.mark.parametrize(
        "value",
        [torch.ones(2), torch.zeros((), device="meta"), numpy.ones(3), object, {1, 2}, b"x", 1j],
        ids=repr,
    )
    def test_what_has_no_form_in_json_is_saved_as_text_with_a_warning(self, path, caplog, value):
        tree = saved(path, log_history=[{"odd_one": value, "loss": 1.0}])
        assert tree["log_history"] == [{"odd_one": str(value), "loss": 1.0}]
        [record] = caplog.records
        assert (record.name, record.levelno) == ("asynccb", logging.WARNING)
        assert "odd_one" in record.getMessage()
        assert "loss" not in record.getMessage()

    def test_one_warning_names_all_keys(self, path, caplog):
        saved(path, log_history=[{"b": 1j, "a": 2j}, {"a": 3j}])
        [record] = caplog.records
        assert "values of a, b;" in record.getMessage()

    def test_keys_that_are_no_text_are_saved_as_text(self, path, caplog):
        tree = saved(path, log_history=[{"per_class": {0: 0.5, "one": 0.25}}])
        assert tree["log_history"] == [{"per_class": {"0": 0.5, "one": 0.25}}]
        assert "per_class" in caplog.text

    def test_a_tuple_is_saved_as_a_list(self, path, caplog):
        assert saved(path, log_history=[{"x": (1, 2)}])["log_history"] == [{"x": [1, 2]}]
        assert not caplog.records


class TestFilesOfTransformers:
    def test_a_file_that_transformers_wrote_is_read(self, path, caplog):
        from transformers import TrainerControl
        from transformers import TrainerState as Theirs

        theirs = Theirs(
            epoch=0.5,
            global_step=4,
            log_history=[{"loss": float("nan"), "lr": 1e-5, "worst": float("-inf"), "step": 4}],
            stateful_callbacks=[TrainerControl(should_save=True)],
            best_metric=float("inf"),
        )
        theirs.save_to_json(str(path))
        assert "NaN" in path.read_text()
        ours = TrainerState.load_from_json(str(path))
        assert fields_of(ours) == fields_of(theirs)
        assert not caplog.records

    def test_transformers_reads_our_file(self, path):
        from transformers import TrainerState as Theirs

        ours = TrainerState(epoch=0.5, global_step=4, log_history=[{"loss": 0.5, "step": 4}])
        ours.save_to_json(str(path))
        assert fields_of(Theirs.load_from_json(str(path))) == fields_of(ours)


class TestReading:
    def test_unknown_keys_are_named_in_a_warning_and_left_out(self, path, caplog):
        state = load(path, '{"global_step": 3, "zeta": 1, "alpha": 2}')
        assert state == TrainerState(global_step=3)
        assert caplog.messages == [f"{path}: unknown keys are left out: alpha, zeta"]

    def test_keys_that_are_missing_take_their_defaults(self, path):
        assert load(path, "{}") == TrainerState()

    def test_null_histories_and_callback_states_are_empty(self, path):
        assert load(path, '{"log_history": null, "stateful_callbacks": null}') == TrainerState()

    @pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} x', "[" * 100_000])
    def test_what_is_not_json_is_refused_by_file(self, path, text):
        with pytest.raises(StateFileError, match=f"{path} is not JSON"):
            load(path, text)

    def test_bytes_that_are_no_text_are_refused(self, path):
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(StateFileError, match=f"{path} is not JSON"):
            TrainerState.load_from_json(str(path))

    @pytest.mark.parametrize("text", ["[]", "null", "3", '"text"'])
    def test_json_that_is_no_object_is_refused(self, path, text):
        with pytest.raises(StateFileError, match="not a JSON object"):
            load(path, text)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("global_step", '"ten"'),
            ("global_step", "1.5"),
            ("global_step", "true"),
            ("global_step", "null"),
            ("epoch", "false"),
            ("best_metric", '"low"'),
            ("log_history", "{}"),
            ("log_history", "[1]"),
            ("stateful_callbacks", "[]"),
            ("is_world_process_zero", "1"),
            ("trial_name", "5"),
            ("trial_params", '"x"'),
        ],
    )
    def test_a_value_of_the_wrong_kind_is_refused_by_file_field_and_value(self, path, field, value):
        shown = repr(json.loads(value)) if value != "[1]" else "1"
        with pytest.raises(StateFileError) as caught:
            load(path, f'{{"{field}": {value}}}')
        for part in (str(path), field, shown):
            assert part in str(caught.value)

    def test_an_error_does_not_repeat_a_value_of_any_length(self, path):
        with pytest.raises(StateFileError) as caught:
            load(path, json.dumps({"global_step": "x" * 10_000}))
        assert len(str(caught.value)) < 500

    def test_a_file_that_is_missing_is_an_error_of_the_file_system(self, path):
        with pytest.raises(FileNotFoundError):
            TrainerState.load_from_json(str(path))
