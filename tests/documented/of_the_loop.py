"""Documented statements about callbacks, state, control, flow, displays and early stopping."""

from __future__ import annotations

from tests.documented.statement import Statement, shown

_EXAMPLES = "huggingface/test_page_examples.py::"
_SAME = (
    "huggingface/test_differential.py::"
    "test_events_flags_and_values_are_equal_but_where_they_differ_on_purpose"
)
_FIELDS = "state/test_state.py::TestFields::test_fields_and_defaults_are_those_of_transformers"
_AT_EVENTS = (
    "huggingface/test_state_fields.py::test_the_fields_are_those_of_transformers_at_every_event"
)
_INLINE = "dispatch/test_inline.py::"
_OBJECTS = f"{_INLINE}TestArguments::test_every_event_passes_state_control_args_and_all_objects"
_CONTROL = "state/test_control.py::"
_RESETS = "test_events.py::test_events_reset_the_flags_that_they_do_in_transformers"
_STATE = "state/test_state.py::"
_FILE = "state/test_json_file.py::"
_STOPPING = "callbacks/test_early_stopping.py::"
_PREDICTION = (
    "huggingface/test_predictions.py::test_a_prediction_is_its_steps_and_one_event_with_its_metrics"
)
_REGISTERED = (
    f"{_EXAMPLES}test_a_callback_may_be_registered_as_a_class_or_an_instance_at_once_or_later"
)
_REMOVED = f"{_EXAMPLES}test_a_callback_that_was_removed_or_popped_is_called_no_more"
_DISPLAY = f"{_EXAMPLES}test_the_display_is_the_progress_bar_unless_tqdm_is_disabled"
_LIST = f"{_INLINE}TestCallbacks::"
_ORACLE = "trainer/test_oracle.py::"
_RESTORED = f"{_STATE}TestExportedStates::"

PAGE: dict[str, Statement] = {
    "page: read only": shown(
        "hooks change the run through the control alone",
        f"{_STATE}TestSnapshot::test_writing_to_it_is_refused_by_name",
    ),
    "page: default callbacks": shown(
        "the flow comes first and the display last",
        _DISPLAY,
        "trainer/test_trainer.py::test_the_callbacks_stand_between_the_flow_and_the_display",
    ),
    "page: order of events": shown(
        "epochs, steps, substeps and what follows them",
        "trainer/test_trainer.py::test_the_events_come_in_the_documented_order",
        _SAME,
    ),
    "page: register a class or an instance": shown("in callbacks= or later", _REGISTERED),
    "page: message at the beginning": shown("the example prints once", _REGISTERED),
    "page: positional arguments": shown("args, state and control in every event", _OBJECTS),
    "page: keywords": shown("hooks name the keywords that they want", _OBJECTS, _SAME),
    "page: a changed control is returned": shown(
        "a hook may return the control",
        f"{_INLINE}TestControl::test_a_returned_control_replaces_the_one_of_the_run_for_good",
    ),
    "page: printer example": shown(
        "each log is printed",
        f"{_EXAMPLES}test_the_printer_of_the_documentation_prints_each_log",
    ),
    "page: epochs example": shown(
        "a hook reads the schedule and asks for an evaluation",
        f"{_EXAMPLES}test_a_callback_reads_the_live_schedule_and_asks_for_an_evaluation",
    ),
    "page: swap of the display": shown(
        "remove one display and add another",
        f"{_EXAMPLES}test_the_display_may_be_swapped_by_hand",
    ),
    "page: early stopping example": shown(
        "patience and threshold end the training",
        f"{_EXAMPLES}test_early_stopping_ends_a_training_that_gets_no_better",
    ),
    "page: early stopping's two arguments": shown(
        "a metric and evaluations are required",
        f"{_EXAMPLES}test_early_stopping_requires_its_two_arguments",
    ),
}
"""Statements of the page's own text, which the package does not contain."""

TRAINER: dict[str, Statement] = {
    "Trainer.add_callback": shown("takes a class or an instance", _REGISTERED),
    "Trainer.pop_callback": shown(
        "returns what it removes, else None",
        _REMOVED,
        f"{_EXAMPLES}test_popping_what_is_not_there_returns_none",
    ),
    "Trainer.remove_callback": shown("removes by class or instance", _REMOVED),
    "CallbackHandler": shown(
        "calls callbacks in order",
        f"{_INLINE}TestOrder::test_hooks_run_in_the_order_of_the_callbacks_on_the_callers_thread",
    ),
    "CallbackHandler.callbacks": shown(
        "classes become instances",
        f"{_LIST}test_a_class_is_made_into_an_instance_and_an_instance_is_taken_as_it_is",
    ),
    "CallbackHandler.callback_list": shown(
        "the names of the classes",
        f"{_LIST}test_a_class_is_made_into_an_instance_and_an_instance_is_taken_as_it_is",
    ),
    "CallbackHandler.add_callback": shown(
        "a second one of a class is a warning",
        f"{_LIST}test_a_second_one_of_a_class_is_added_with_a_warning",
    ),
    "CallbackHandler.pop_callback": shown(
        "the first of a class",
        f"{_LIST}test_popping_a_class_takes_the_first_that_is_one_and_returns_it",
    ),
    "CallbackHandler.remove_callback": shown(
        "a class that is not there is no error",
        f"{_LIST}test_removing_a_class_that_is_not_there_is_silent",
    ),
    **{
        f"CallbackHandler.{name}": shown("is passed to every hook", _OBJECTS)
        for name in ("model", "processing_class", "optimizer", "lr_scheduler")
    },
}

CALLBACK: dict[str, Statement] = {
    "TrainerCallback": shown(
        "inspects the run at events", "callbacks/test_base.py::TestFinding::"
        "test_all_sixteen_events_can_be_hooked",
    ),
    **{
        f"TrainerCallback.{name}": shown("is passed to every hook", _OBJECTS, _SAME)
        for name in (
            "args", "state", "control", "model", "processing_class", "optimizer", "lr_scheduler",
            "train_dataloader", "eval_dataloader",
        )
    },
    "TrainerCallback.metrics": shown("what an evaluation gave", _SAME),
    "TrainerCallback.metrics.on_evaluate": shown("no other event of a training has them", _SAME),
    "TrainerCallback.logs": shown("the values to log", _SAME),
    "TrainerCallback.logs.on_log": shown("no other event has them", _SAME),
    **{
        f"TrainerCallback.{event}": shown("comes where it does in transformers", _SAME)
        for event in (
            "on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end",
            "on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_substep_end",
            "on_step_end", "on_evaluate", "on_save", "on_log", "on_prediction_step",
        )
    },
    "TrainerCallback.on_predict": shown("comes after a prediction", _PREDICTION),
    "TrainerCallback.on_push_begin": shown(
        "is an event of its own", f"{_ORACLE}test_9_08_on_push_begin_is_one_event_and_nothing_else"
    ),
}  # fmt: skip

STATE: dict[str, Statement] = {
    "TrainerState": shown(
        "is saved with a checkpoint",
        _FIELDS,
        "checkpoint/test_folders.py::test_the_state_of_a_checkpoint_reads_back",
    ),
    **{
        f"TrainerState.{name}": shown("has its default, and its value at each event", _FIELDS,
                                      _AT_EVENTS)
        for name in (
            "epoch", "global_step", "max_steps", "logging_steps", "eval_steps", "save_steps",
            "train_batch_size", "num_train_epochs", "best_metric", "best_global_step",
            "best_model_checkpoint", "is_hyper_param_search",
        )
    },
    "TrainerState.num_input_tokens_seen": shown(
        "counts input tokens",
        "trainer/test_data.py::test_tokens_are_counted_without_the_padding",
    ),
    "TrainerState.total_flos": shown("begins at 0", _FIELDS),
    "TrainerState.log_history": shown("holds every log", _SAME),
    "TrainerState.is_local_process_zero": shown(
        "leads a machine", f"{_STATE}TestTrainingReferences::test_lengths_and_rank_are_set"
    ),
    "TrainerState.is_world_process_zero": shown(
        "leads all", f"{_STATE}TestTrainingReferences::test_lengths_and_rank_are_set"
    ),
    **{
        f"TrainerState.{name}": shown(
            "comes from a search",
            f"{_STATE}TestTrainingReferences::test_a_search_trial_gives_its_name_and_parameters",
        )
        for name in ("trial_name", "trial_params")
    },
    "TrainerState.stateful_callbacks": shown(
        "keeps the states of callbacks",
        f"{_RESTORED}test_a_list_of_callbacks_becomes_their_states_by_class_name",
        "trainer/test_resume.py::test_a_callback_gets_its_state_back_in_place",
    ),
    "TrainerState.save_to_json": shown(
        "transformers reads the file", f"{_FILE}TestFilesOfTransformers::"
        "test_transformers_reads_our_file",
    ),
    "TrainerState.load_from_json": shown(
        "reads a file of transformers", f"{_FILE}TestFilesOfTransformers::"
        "test_a_file_that_transformers_wrote_is_read",
    ),
    "TrainerState.compute_steps": shown(
        "shares become steps", f"{_STATE}TestComputeSteps::test_shares_become_steps"
    ),
    "TrainerState.init_training_references": shown(
        "lengths and ranks are set",
        f"{_STATE}TestTrainingReferences::test_lengths_and_rank_are_set",
    ),
    "ExportableState": shown(
        "is saved and restored with a checkpoint",
        "trainer/test_resume.py::test_a_callback_gets_its_state_back_in_place",
    ),
    "ExportableState.state": shown(
        "must be defined", f"{_RESTORED}test_a_class_without_state_says_that_it_must_define_it"
    ),
    "ExportableState.from_state": shown(
        "builds from arguments and attributes",
        f"{_RESTORED}test_from_state_builds_from_the_arguments_and_sets_the_attributes",
    ),
}  # fmt: skip

CONTROL: dict[str, Statement] = {
    "TrainerControl": shown(
        "hooks switch flags of the loop", _SAME, f"{_CONTROL}test_every_flag_is_false_at_first"
    ),
    **{
        f"TrainerControl.{flag}": shown(
            "is False at first, and does what it says",
            f"{_CONTROL}test_every_flag_is_false_at_first",
            _SAME,
        )
        for flag in (
            "should_training_stop", "should_epoch_stop", "should_save", "should_evaluate",
            "should_log",
        )
    },
    "TrainerControl.should_training_stop.reset": shown(
        "stays until a training begins anew",
        _RESETS,
        f"{_INLINE}TestStep::test_the_flags_of_the_step_before_are_cleared_and_stops_are_kept",
    ),
    **{
        f"TrainerControl.{flag}.reset": shown("is cleared where the next one begins", _RESETS)
        for flag in ("should_epoch_stop", "should_save", "should_evaluate", "should_log")
    },
    "TrainerControl.state": shown(
        "has the form of transformers",
        f"{_CONTROL}test_the_state_has_the_form_that_transformers_saves",
    ),
}  # fmt: skip

SHIPPED: dict[str, Statement] = {
    "DefaultFlowCallback": shown(
        "decides on logs, evaluations and checkpoints",
        "callbacks/test_default_flow.py::test_every_step_is_decided_as_in_transformers",
    ),
    "ProgressCallback": shown(
        "shows the progress of training and evaluation",
        "callbacks/test_progress.py::TestTrainingBar::test_it_ends_at_the_last_step",
        "callbacks/test_progress.py::TestPredictionBar::"
        "test_it_counts_the_batches_and_goes_with_the_evaluation",
    ),
    "ProgressCallback.max_str_len": shown(
        "longer texts are replaced",
        "callbacks/test_progress.py::TestLogs::"
        "test_a_long_text_is_replaced_by_its_length_and_the_limit",
    ),
    "PrinterCallback": shown(
        "prints logs",
        "callbacks/test_printer.py::test_floats_are_printed_with_four_digits_and_all_else_as_it_is",
    ),
    "EarlyStoppingCallback": shown(
        "stops where transformers does",
        f"{_STOPPING}TestCounting::test_any_run_stops_where_transformers_stops_it",
    ),
    "EarlyStoppingCallback.early_stopping_patience": shown(
        "counts evaluations in a row",
        f"{_STOPPING}TestCounting::test_patience_counts_evaluations_in_a_row",
    ),
    "EarlyStoppingCallback.early_stopping_threshold": shown(
        "is the least improvement",
        f"{_STOPPING}TestCounting::test_an_improvement_within_the_threshold_is_none",
    ),
    "EarlyStoppingCallback.check_metric_value": shown(
        "counts or begins anew",
        f"{_STOPPING}TestCounting::test_check_metric_value_counts_or_begins_anew",
    ),
    "EarlyStoppingCallback.state": shown(
        "has the form of transformers",
        f"{_STOPPING}TestState::test_it_has_the_form_that_transformers_saves",
    ),
    "EarlyStoppingCallback(metric_for_best_model)": shown(
        "is required", f"{_EXAMPLES}test_early_stopping_requires_its_two_arguments"
    ),
    "EarlyStoppingCallback(load_best_model_at_end)": shown(
        "is missed with a warning",
        f"{_STOPPING}TestTrainBegin::test_a_run_that_ends_with_the_last_model_is_warned_of",
    ),
}

OF_THE_LOOP = {**PAGE, **TRAINER, **CALLBACK, **STATE, **CONTROL, **SHIPPED}
