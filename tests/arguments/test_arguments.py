import copy
import dataclasses
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments import (
    IntervalStrategy,
    TrainingArguments,
)


class TestDefaults:
    def test_they_are_those_of_transformers_but_for_report_to(self):
        from transformers import TrainingArguments as Theirs

        theirs = {f.name: f.default for f in dataclasses.fields(Theirs)}
        ours = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
        differing = {name for name in ours if name not in theirs or ours[name] != theirs[name]}
        assert differing == {"output_dir", "report_to", "warmup_ratio"}

    def test_a_missing_directory_is_trainer_output(self):
        assert TrainingArguments().output_dir == "trainer_output"
        assert TrainingArguments(output_dir=None).output_dir == "trainer_output"

    def test_the_directory_is_not_made(self, tmp_path):
        TrainingArguments(output_dir=str(tmp_path / "runs"))
        assert not (tmp_path / "runs").exists()

    def test_a_tilde_is_expanded(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/ada")
        assert TrainingArguments("~/runs").output_dir == "/home/ada/runs"

    def test_a_path_is_taken(self):
        assert TrainingArguments(Path("a") / "b").output_dir == "a/b"

    @pytest.mark.parametrize(
        ("level", "disabled"), [(logging.WARNING, False), (logging.ERROR, True)]
    )
    def test_the_progress_bar_is_off_where_warnings_are_hidden(self, caplog, level, disabled):
        caplog.set_level(level, "asynccb")
        assert TrainingArguments().disable_tqdm is disabled

    def test_an_evaluation_strategy_sets_do_eval(self):
        assert TrainingArguments(eval_strategy="epoch").do_eval
        assert not TrainingArguments().do_eval

    def test_a_compile_mode_switches_compilation_on(self):
        assert TrainingArguments(torch_compile_mode="default").torch_compile

    def test_training_on_the_cpu_switches_pinned_memory_off(self):
        assert not TrainingArguments(use_cpu=True).dataloader_pin_memory

    @pytest.mark.parametrize("name", ["max_grad_norm", "eval_delay"])
    def test_none_is_0_where_transformers_takes_none_or_fails_later(self, name):
        assert getattr(TrainingArguments(**{name: None}), name) == 0

    @pytest.mark.parametrize(
        ("given", "kept"), [(True, "all"), (False, "no"), ("non_padding",) * 2]
    )
    def test_token_counting_takes_bools(self, given, kept):
        args = TrainingArguments(include_num_input_tokens_seen=given)
        assert args.include_num_input_tokens_seen == kept


class TestRank:
    def test_a_lone_process_is_rank_0_of_1(self, monkeypatch):
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        args = TrainingArguments()
        assert (args.process_index, args.local_process_index, args.world_size) == (0, 0, 1)
        assert args.should_log
        assert args.should_save

    @pytest.fixture
    def second_machine(self, monkeypatch):
        for name, value in (("RANK", "8"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "16")):
            monkeypatch.setenv(name, value)

    @pytest.mark.usefixtures("second_machine")
    def test_the_ranks_are_those_that_torchrun_sets(self):
        args = TrainingArguments()
        assert (args.process_index, args.local_process_index, args.world_size) == (8, 0, 16)

    @pytest.mark.usefixtures("second_machine")
    def test_the_ranks_are_those_of_the_time_of_construction(self, monkeypatch):
        args = TrainingArguments()
        monkeypatch.setenv("RANK", "3")
        assert args.process_index == 8

    @pytest.mark.usefixtures("second_machine")
    @pytest.mark.parametrize("each", [True, False])
    def test_the_first_process_of_a_machine_leads_where_each_node_does(self, each):
        args = TrainingArguments(log_on_each_node=each, save_on_each_node=each)
        assert (args.should_log, args.should_save) == (each, each)

    @pytest.mark.parametrize("value", ["one", "-1", "1.0", "²"])
    def test_a_rank_that_is_no_number_is_refused(self, monkeypatch, value):
        monkeypatch.setenv("RANK", value)
        with pytest.raises(ConfigurationError, match=f"RANK is {value!r}; it takes digits"):
            TrainingArguments()

    def test_a_rank_beyond_the_world_is_refused(self, monkeypatch):
        monkeypatch.setenv("RANK", "4")
        monkeypatch.setenv("WORLD_SIZE", "4")
        with pytest.raises(ConfigurationError, match=r"RANK=4 .* must be below WORLD_SIZE=4"):
            TrainingArguments()

    def test_batch_sizes_are_those_of_one_device(self):
        args = TrainingArguments(per_device_train_batch_size=3, per_device_eval_batch_size=5)
        assert (args.train_batch_size, args.eval_batch_size) == (3, 5)


class TestExport:
    def test_every_field_is_there_as_plain_json(self):
        args = TrainingArguments(eval_strategy="steps", lr_scheduler_type="cosine")
        values = args.to_dict()
        assert list(values) == [f.name for f in dataclasses.fields(args)]
        assert type(values["eval_strategy"]) is str
        assert json.loads(args.to_json_string()) == values

    def test_a_secret_appears_nowhere(self):
        args = TrainingArguments(hub_token="hf_secret")
        assert args.to_dict()["hub_token"] == "<HUB_TOKEN>"
        assert "hf_secret" not in args.to_json_string() + repr(args) + str(args)

    def test_a_secret_of_the_wrong_kind_is_refused_without_showing_it(self):
        with pytest.raises(ConfigurationError, match="hub_token is a bytes") as caught:
            TrainingArguments(hub_token=b"hf_secret")
        assert "hf_secret" not in str(caught.value)

    def test_fields_of_a_subclass_are_exported_whatever_they_hold(self):
        @dataclasses.dataclass
        class Extended(TrainingArguments):
            where: Path = Path("x")
            api_token: str = "secret"
            worst: float = float("inf")
            nested: dict = dataclasses.field(
                default_factory=lambda: {1: {IntervalStrategy.NO}, "o": 1j}
            )

        values = json.loads(Extended().to_json_string())
        assert (values["where"], values["api_token"]) == ("x", "<API_TOKEN>")
        assert (values["worst"], values["nested"]) == ("inf", {"1": ["no"], "o": "1j"})

    @pytest.mark.parametrize(
        "duplicate",
        [copy.deepcopy, dataclasses.replace, lambda a: pickle.loads(pickle.dumps(a))],
    )
    def test_a_copy_is_equal_and_keeps_the_secret(self, duplicate):
        args = TrainingArguments(hub_token="hf_secret", eval_strategy="steps", use_cpu=True)
        twin = duplicate(args)
        assert twin == args
        assert (twin.hub_token, twin.process_index) == ("hf_secret", 0)

    def test_reading_the_module_does_not_load_torch(self):
        code = "import sys, asynccb.arguments; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestSetters:
    def test_logging_is_set_together_and_normalised(self):
        args = TrainingArguments(logging_first_step=True)
        assert args.set_logging("epoch", report_to="mlflow") is args
        assert args.logging_strategy is IntervalStrategy.EPOCH
        assert args.report_to == ["mlflow"]
        assert args.logging_first_step is False

    def test_defaults_are_those_of_the_fields(self):
        args, plain = TrainingArguments(), TrainingArguments()
        assert args.set_logging().set_save().set_evaluate() == dataclasses.replace(
            plain, eval_steps=500
        )

    def test_evaluation_is_set_together(self):
        args = TrainingArguments().set_evaluate("steps", 10, batch_size=2)
        assert (args.eval_strategy, args.eval_steps, args.do_eval) == ("steps", 10, True)
        assert (args.per_device_eval_batch_size, args.eval_delay) == (2, 0)

    def test_two_groups_may_be_changed_one_after_another(self):
        args = TrainingArguments(
            load_best_model_at_end=True, eval_strategy="epoch", save_strategy="epoch"
        )
        args.set_evaluate("steps", 10).set_save("steps", 20).validate()
        assert (args.eval_steps, args.save_steps) == (10, 20)

    def test_a_bad_value_changes_nothing(self):
        args = TrainingArguments()
        before = dataclasses.replace(args)
        with pytest.raises(ConfigurationError, match="save_steps"):
            args.set_save("epoch", steps=-1)
        assert args == before
