"""
What transformers documents of its callbacks, and for each statement the tests that show it.

Statements of `STATEMENTS` hold here too. For each of `DIFFERENCES`, `said` is the reason to differ,
and the tests show what ours does instead.
"""

from __future__ import annotations

from tests.documented.of_the_loop import OF_THE_LOOP
from tests.documented.of_trackers import OF_TRACKERS
from tests.documented.statement import Statement, shown

_UNKNOWN = (
    "trackers/test_report_to.py::"
    "test_the_names_are_those_of_transformers_but_for_what_nobody_delivers_to",
    "trackers/test_report_to.py::test_an_unknown_name_is_an_error_that_lists_what_is_known",
)
_EARLY = "trainer/test_oracle.py::test_4_4_it_stops_at_the_evaluation_and_not_at_the_next_save"
_CONFIGURED = (
    "trackers/test_report_to.py::test_all_are_those_that_are_configured_in_the_environment"
)
_MODELS = (
    "trackers/wandb/test_settings.py::"
    "test_the_variable_enables_models_where_it_does_in_transformers"
)
_WHEN_MADE = "settings are read when the tracker is made; its arguments customise them, not setup()"

STATEMENTS: dict[str, Statement] = {**OF_THE_LOOP, **OF_TRACKERS}

DIFFERENCES: dict[str, Statement] = {
    "report_to=all": shown(
        "names what is configured: a tracker needs no package, so none can be missing", _CONFIGURED
    ),
    "report_to: default": shown(
        "is all, since nothing is sent anywhere that is not configured",
        "arguments/test_arguments.py::TestDefaults::"
        "test_they_are_those_of_transformers_but_for_report_to",
    ),
    **{
        name: shown("is not ported, since transformers deprecates it; its name is refused",
                    *_UNKNOWN)
        for name in (
            "report_to=neptune", "NeptuneCallback", "NeptuneCallback.api_token",
            "NeptuneCallback.project", "NeptuneCallback.name", "NeptuneCallback.base_namespace",
            "NeptuneCallback.run", "NeptuneCallback.log_parameters",
            "NeptuneCallback.log_checkpoints", "NeptuneCallback.neptune_run_kwargs",
            "NeptuneCallback.get_run", "NEPTUNE_API_TOKEN", "NEPTUNE_PROJECT",
        )
    },
    **{
        name: shown(
            "is not ported: a cluster's controller is no tracker; its name is refused", *_UNKNOWN
        )
        for name in (
            "report_to=kubeflow", "KubeflowCallback", "KUBEFLOW_TRAINER_SERVER_URL",
            "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN",
            "DISABLE_KUBEFLOW_INTEGRATION", "DISABLE_KUBEFLOW_INTEGRATION=TRUE",
        )
    },
    **{
        name: shown("stopping waits for no save, in transformers' own code neither", _EARLY)
        for name in ("EarlyStoppingCallback(save_steps)", "EarlyStoppingCallback(eval_steps)")
    },
    "COMET_LOG_ASSETS.default": shown(
        "is FALSE, as in transformers' own code",
        "trackers/comet_ml/test_settings.py::"
        "test_the_variable_says_whether_assets_are_logged_as_it_does_in_transformers",
    ),
    "SWANLAB_LOG_MODEL": shown(
        "stores models, which transformers only announces",
        "trackers/swanlab/test_whole.py::"
        "test_a_trainer_logs_what_the_variables_of_transformers_ask_for",
    ),
    "TrackioCallback(trackio_static_space_id)": shown(
        "no static copy is made, which needs the vendor's package; a warning names its command",
        "trackers/trackio/test_callback.py::"
        "test_a_static_copy_that_the_arguments_name_is_said_once_not_to_be_made",
    ),
    "TensorBoardCallback.tb_writer": shown(
        "gives its directory: a live writer cannot move to another process",
        "trackers/tensorboard/test_callback.py::test_a_summary_writer_gives_its_directory",
    ),
    "DVCLiveCallback.kwargs": shown(
        "are named arguments, so that a misspelt one is an error",
        "trackers/dvclive/test_callback.py::test_a_setting_that_cannot_work_is_refused_at_once",
    ),
    "DagsHubCallback.is_a.MLflowCallback": shown(
        "shares its code, and is none: each has addresses of its own",
        "trackers/dagshub/test_callback.py::"
        "test_the_address_of_a_repository_is_dagshubs_and_not_mlflows",
    ),
    "CallbackHandler.call_event": shown(
        "is CallbackDispatcher.emit",
        "dispatch/test_inline.py::TestArguments::"
        "test_what_is_emitted_with_an_event_reaches_the_hooks_as_it_is",
    ),
    **{
        name: shown("are plain words in place of an enum", _MODELS)
        for name in (
            "WandbLogModel", "WandbLogModel.CHECKPOINT", "WandbLogModel.END",
            "WandbLogModel.FALSE", "WandbLogModel.is_enabled",
        )
    },
    "WandbCallback.setup": shown(
        _WHEN_MADE, "trackers/wandb/test_settings.py::"
        "test_every_variable_is_read_and_an_argument_goes_before_it",
    ),
    "TrackioCallback.setup": shown(
        _WHEN_MADE, "trackers/trackio/test_callback.py::"
        "test_the_training_arguments_name_project_and_bucket",
    ),
    "CometCallback.setup": shown(
        _WHEN_MADE, "trackers/comet_ml/test_settings.py::"
        "test_variables_are_read_where_nothing_is_given",
    ),
    "MLflowCallback.setup": shown(
        _WHEN_MADE, "trackers/mlflow/test_settings.py::"
        "test_every_setting_can_come_from_its_variable",
    ),
    "DagsHubCallback.setup": shown(
        _WHEN_MADE, "trackers/dagshub/test_callback.py::"
        "test_the_variable_says_whether_the_output_is_committed",
    ),
    "ClearMLCallback.setup": shown(
        _WHEN_MADE, "trackers/clearml/test_settings.py::"
        "test_every_variable_is_read_and_an_argument_goes_before_it",
    ),
    "DVCLiveCallback.setup": shown(
        _WHEN_MADE, "trackers/dvclive/test_callback.py::"
        "test_the_variable_says_which_models_are_kept",
    ),
    "SwanLabCallback.setup": shown(
        _WHEN_MADE, "trackers/swanlab/test_settings.py::"
        "test_every_variable_is_read_and_an_argument_goes_before_it",
    ),
}  # fmt: skip
