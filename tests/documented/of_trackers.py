"""Documented statements about trackers, their variables, and `report_to`."""

from __future__ import annotations

from tests.documented.statement import Statement, shown

_WANDB = "trackers/wandb/test_settings.py::"
_WANDB_MODELS = f"{_WANDB}test_the_variable_enables_models_where_it_does_in_transformers"
_WANDB_ALONE = (
    f"{_WANDB}test_without_anything_it_is_the_vendors_cloud_and_the_project_of_transformers"
)
_WANDB_RUN = "trackers/wandb/test_whole.py::"
_WANDB_FILES = "trackers/wandb/test_files.py::"
_WATCH = f"{_WANDB_RUN}test_the_variable_says_what_is_watched"
_BEST = f"{_WANDB_RUN}test_where_the_best_model_is_loaded_at_the_end_it_is_the_one_uploaded"
_ASKED = "test_a_trainer_logs_what_the_variables_of_transformers_ask_for"
_COMET = "trackers/comet_ml/test_settings.py::"
_COMET_RUN = "trackers/comet_ml/test_callback.py::"
_COMET_READ = f"{_COMET}test_variables_are_read_where_nothing_is_given"
_COMET_MODE = f"{_COMET}test_the_variable_says_how_an_experiment_is_found"
_COMET_ASSETS = (
    f"{_COMET}test_the_variable_says_whether_assets_are_logged_as_it_does_in_transformers"
)
_MLFLOW = "trackers/mlflow/test_settings.py::"
_MLFLOW_RUN = "trackers/mlflow/test_callback.py::"
_MLFLOW_READ = f"{_MLFLOW}test_every_setting_can_come_from_its_variable"
_SWITCH = f"{_MLFLOW}test_a_switch_means_what_it_does_in_transformers"
_CHECKPOINT = (
    "trackers/mlflow/test_files.py::test_a_checkpoint_arrives_file_by_file_through_the_server"
)
_EXPERIMENT = (
    f"{_MLFLOW_RUN}test_an_experiment_that_is_not_there_is_made_and_none_is_the_default_one"
)
_DISABLED = f"{_MLFLOW}test_it_is_configured_where_there_is_an_address_and_no_veto"
_NESTED = f"{_MLFLOW_RUN}test_a_nested_run_is_a_child_of_the_given_one_in_its_experiment"
_FLAT = f"{_MLFLOW_RUN}test_parameters_are_flattened_and_limited_on_demand"
_DAGSHUB = "trackers/dagshub/test_callback.py::"
_COMMIT = f"{_DAGSHUB}test_the_variable_says_whether_the_output_is_committed"
_BRANCH = f"{_DAGSHUB}test_the_branch_is_main_or_that_of_its_variable_and_a_model_has_no_name"
_CLEARML = "trackers/clearml/test_settings.py::"
_CLEARML_RUN = f"trackers/clearml/test_whole.py::{_ASKED}"
_CLEARML_ALONE = (
    f"{_CLEARML}test_without_anything_it_is_the_vendors_cloud_and_the_names_of_transformers"
)
_SWANLAB = "trackers/swanlab/test_settings.py::"
_SWANLAB_READ = f"{_SWANLAB}test_every_variable_is_read_and_an_argument_goes_before_it"
_SWANLAB_ALONE = f"{_SWANLAB}test_without_anything_it_is_the_vendors_cloud_and_the_folders_name"
_MODE = f"{_SWANLAB}test_the_variable_says_the_mode"
_RESUME = f"{_SWANLAB}test_the_variable_says_how_a_run_is_resumed"
_DVCLIVE = "trackers/dvclive/test_callback.py::"
_KEPT = f"{_DVCLIVE}test_the_variable_says_which_models_are_kept"
_DVC = "trackers/dvclive/test_vendor.py::"
_BOARD = "trackers/tensorboard/test_callback.py::"
_TRACKIO = "trackers/trackio/test_callback.py::"
_ARGUMENTS = f"{_TRACKIO}test_the_training_arguments_name_project_and_bucket"
_SPACE = f"{_TRACKIO}test_a_space_that_is_not_there_is_made_as_the_vendors_client_makes_it"
_PLACES = f"{_TRACKIO}test_a_space_wins_over_a_server_and_both_over_the_folder"
_FLYTE = "trackers/flyte/test_callback.py::"
_PARTS = f"{_FLYTE}test_the_log_history_and_the_checkpoints_are_on_unless_switched_off"
_NAMES = "trackers/test_report_to.py::"

TRACKERS: dict[str, Statement] = {
    "TensorBoardCallback": shown(
        "writes logs", f"{_BOARD}test_every_logged_step_is_read_back_exactly_once"
    ),
    "WandbCallback": shown("logs metrics and models", f"{_WANDB_RUN}{_ASKED}"),
    "WandbCallback(load_best_model_at_end)": shown("uploads the best model", _BEST),
    "WandbCallback(save_steps)": shown(
        "checkpoints are uploaded as they are saved", f"{_WANDB_RUN}{_ASKED}"
    ),
    "TrackioCallback": shown(
        "logs metrics", f"{_TRACKIO}test_a_run_has_its_name_configuration_and_grouped_metrics"
    ),
    "TrackioCallback(project)": shown("is named by the arguments", _ARGUMENTS),
    "TrackioCallback(trackio_space_id)": shown("is named by the arguments", _PLACES),
    "TrackioCallback(trackio_bucket_id)": shown("is named by the arguments", _ARGUMENTS),
    "TrackioCallback(hub_private_repo)": shown("makes a private Space", _SPACE),
    "CometCallback": shown(
        "sends logs",
        "trackers/comet_ml/test_whole.py::"
        "test_a_trainer_leaves_metrics_parameters_layers_files_and_its_end",
    ),
    "AzureMLCallback": shown(
        "sends logs",
        "trackers/azure_ml/test_callback.py::test_a_job_gets_its_metrics_and_is_never_ended",
    ),
    "AzureMLCallback.azureml_run": shown(
        "is the run that is logged to",
        "trackers/azure_ml/test_callback.py::test_a_live_run_stands_for_its_workspace_and_its_id",
    ),
    "MLflowCallback": shown(
        "sends logs", f"{_MLFLOW_RUN}test_every_point_is_there_once_as_it_was_emitted"
    ),
    "MLflowCallback(output_dir)": shown("its checkpoints are stored", _CHECKPOINT),
    "DagsHubCallback": shown(
        "sends logs",
        f"{_DAGSHUB}test_a_run_is_told_with_the_users_name_and_token_to_the_repositorys_mlflow",
    ),
    "CodeCarbonCallback": shown(
        "tracks emissions",
        "trackers/codecarbon/test_callback.py::"
        "test_a_run_has_its_row_and_every_tracker_the_values_to_the_last",
    ),
    "ClearMLCallback": shown("sends logs", _CLEARML_RUN),
    "FlyteCallback": shown(
        "an attempt goes on from the last checkpoint",
        f"{_FLYTE}test_a_task_that_is_killed_and_tried_again_goes_on_from_its_last_checkpoint",
        f"{_FLYTE}test_outside_a_task_it_says_so_and_does_nothing",
    ),
    "FlyteCallback.save_log_history": shown("is on, and draws the Deck", _PARTS),
    "FlyteCallback.sync_checkpoints": shown("is on, and stores checkpoints", _PARTS),
    "DVCLiveCallback": shown("dvc reads what is logged", f"{_DVC}test_dvc_reads_our_metrics"),
    "DVCLiveCallback.live": shown(
        "is gone on with", f"{_DVC}test_a_given_live_sums_up_what_both_have_logged"
    ),
    "DVCLiveCallback.log_model": shown(
        "logs the final model",
        f"{_DVC}test_our_experiment_holds_the_files_and_the_model",
    ),
    "DVCLiveCallback(output_dir)": shown(
        "is logged whole on demand",
        f"{_DVC}test_all_of_the_output_is_tracked_as_it_was_when_a_checkpoint_was_saved",
    ),
    "SwanLabCallback": shown("logs metrics", f"trackers/swanlab/test_whole.py::{_ASKED}"),
    "SwanLabCallback(resume_from_checkpoint)": shown(
        "a resumed training goes on in its run",
        "trackers/swanlab/test_resumed.py::"
        "test_a_resumed_training_logs_nothing_twice_and_finds_its_run_without_its_folder",
    ),
}

VARIABLES: dict[str, Statement] = {
    "TENSORBOARD_LOGGING_DIR": shown(
        "names the directory",
        f"{_BOARD}test_the_variable_names_the_directory_and_its_tilde_is_expanded",
    ),
    "TENSORBOARD_LOGGING_DIR.default": shown(
        "lies below the output",
        f"{_BOARD}test_the_default_directory_is_named_by_the_start_of_the_run",
    ),
    "WANDB_LOG_MODEL": shown("enables models", _WANDB_MODELS),
    "WANDB_LOG_MODEL.default": shown("uploads none", _WANDB_MODELS),
    "WANDB_LOG_MODEL=end": shown("uploads the final one", _WANDB_MODELS, _BEST),
    "WANDB_LOG_MODEL=checkpoint": shown("uploads each", _WANDB_MODELS, f"{_WANDB_RUN}{_ASKED}"),
    "WANDB_LOG_MODEL=false": shown(
        "uploads none",
        _WANDB_MODELS,
        f"{_WANDB_FILES}test_with_end_no_checkpoint_is_uploaded_and_with_false_nothing_is",
    ),
    "WANDB_WATCH": shown("logs histograms", _WATCH),
    "WANDB_WATCH.default": shown("logs none", _WATCH),
    **{
        f"WANDB_WATCH={value}": shown("says which", _WATCH)
        for value in ("gradients", "parameters", "all", "false")
    },
    "WANDB_PROJECT": shown(
        "names the project",
        f"{_WANDB}test_every_variable_is_read_and_an_argument_goes_before_it",
    ),
    "WANDB_PROJECT.default": shown("is that of transformers", _WANDB_ALONE),
    "COMET_MODE": shown("says how an experiment is found", _COMET_MODE),
    "COMET_MODE.default": shown("is get_or_create", _COMET_MODE),
    "COMET_MODE=get_or_create": shown(
        "makes one or goes on",
        _COMET_MODE,
        f"{_COMET_RUN}test_get_or_create_makes_an_experiment_and_then_goes_on_with_it",
    ),
    "COMET_MODE=create": shown(
        "makes one", _COMET_MODE, f"{_COMET_RUN}test_create_refuses_an_experiment_that_is_there"
    ),
    "COMET_MODE=get": shown(
        "needs one",
        _COMET_MODE,
        f"{_COMET_RUN}test_get_gives_up_where_there_is_none",
        f"{_COMET}test_what_cannot_work_is_refused_with_what_would",
    ),
    "COMET_EXPERIMENT_KEY": shown("names an experiment", _COMET_READ),
    "COMET_START_ONLINE": shown("keeps a run offline", _COMET_READ),
    "COMET_PROJECT_NAME": shown("names the project", _COMET_READ),
    "COMET_LOG_ASSETS": shown("says whether files are logged", _COMET_ASSETS),
    "COMET_LOG_ASSETS=TRUE": shown("logs them", _COMET_ASSETS),
    "COMET_LOG_ASSETS=FALSE": shown("logs none", _COMET_ASSETS),
    "DISABLE_MLFLOW_INTEGRATION": shown("leaves the tracker out of all", _DISABLED),
    "DISABLE_MLFLOW_INTEGRATION=TRUE": shown("leaves the tracker out of all", _DISABLED),
    "HF_MLFLOW_LOG_ARTIFACTS": shown("stores checkpoints", _SWITCH, _CHECKPOINT),
    "HF_MLFLOW_LOG_ARTIFACTS=True": shown("stores checkpoints", _SWITCH),
    "HF_MLFLOW_LOG_ARTIFACTS=1": shown("stores checkpoints", _SWITCH),
    "MLFLOW_EXPERIMENT_NAME": shown("names the experiment, which is made", _EXPERIMENT),
    "MLFLOW_EXPERIMENT_NAME.default": shown("is the server's own", _EXPERIMENT),
    "MLFLOW_EXPERIMENT_NAME=Default": shown("is that of no name", _EXPERIMENT),
    "MLFLOW_TAGS": shown("is a mapping in JSON", _MLFLOW_READ),
    "MLFLOW_TRACKING_URI": shown(
        "is a server or a path; unset, what it is for MLflow itself",
        "trackers/mlflow/test_settings.py::"
        "test_a_store_s_address_is_absolute_from_the_training_s_folder",
        "trackers/mlflow/test_settings.py::"
        "test_an_unset_address_is_the_one_that_mlflow_itself_takes",
    ),
    "MLFLOW_NESTED_RUN": shown("makes a child", _SWITCH, _NESTED),
    "MLFLOW_NESTED_RUN=True": shown("makes a child", _SWITCH),
    "MLFLOW_NESTED_RUN=1": shown("makes a child", _SWITCH),
    "MLFLOW_RUN_ID": shown(
        "goes on in a run, whatever else is said",
        _MLFLOW_READ,
        f"{_MLFLOW_RUN}test_a_given_run_is_continued_and_runs_again",
        f"{_MLFLOW_RUN}test_a_given_run_wins_over_an_experiment_and_a_name",
    ),
    "MLFLOW_FLATTEN_PARAMS": shown("joins names", _SWITCH, _FLAT),
    "MLFLOW_FLATTEN_PARAMS.default": shown("is off", _SWITCH),
    "MLFLOW_MAX_LOG_PARAMS": shown("limits parameters", _MLFLOW_READ, _FLAT),
    "HF_DAGSHUB_LOG_ARTIFACTS": shown(
        "commits the output",
        _COMMIT,
        f"{_DAGSHUB}test_the_output_is_committed_when_the_training_ends_but_for_its_journals",
    ),
    "HF_DAGSHUB_LOG_ARTIFACTS.default": shown("is off", _COMMIT),
    "HF_DAGSHUB_LOG_ARTIFACTS=False": shown("commits nothing", _COMMIT),
    "HF_DAGSHUB_MODEL_NAME": shown("is read there, and changes nothing", _BRANCH),
    "BRANCH": shown("names the branch", _BRANCH),
    "CLEARML_PROJECT": shown("names the project", _CLEARML_RUN),
    "CLEARML_PROJECT.default": shown("is that of transformers", _CLEARML_ALONE),
    "CLEARML_TASK": shown("names the task", _CLEARML_RUN),
    "CLEARML_TASK.default": shown("is that of transformers", _CLEARML_ALONE),
    "CLEARML_LOG_MODEL": shown("stores checkpoints", _CLEARML_RUN),
    "CLEARML_LOG_MODEL.default": shown("is off", _CLEARML_ALONE),
    "HF_DVCLIVE_LOG_MODEL": shown("keeps models", _KEPT),
    "HF_DVCLIVE_LOG_MODEL=True": shown("keeps the final one", _KEPT),
    "HF_DVCLIVE_LOG_MODEL=1": shown("keeps the final one", _KEPT),
    "HF_DVCLIVE_LOG_MODEL=all": shown("keeps each", _KEPT),
    "SWANLAB_API_KEY": shown(
        "comes before a login", f"{_SWANLAB}"
        "test_a_login_names_the_server_and_its_key_is_for_that_alone",
    ),
    "SWANLAB_API_KEY.default": shown(
        "is missed where it is needed",
        f"{_SWANLAB}test_without_a_key_the_tracker_says_so_when_it_has_something_to_send",
    ),
    **{
        f"SWANLAB_{name}": shown("is read", _SWANLAB_READ)
        for name in ("PROJECT", "LOG_DIR", "WEB_HOST", "API_HOST", "RUN_ID")
    },
    **{
        f"SWANLAB_{name}.default": shown("is that of the vendor", _SWANLAB_ALONE)
        for name in ("PROJECT", "LOG_DIR", "WEB_HOST", "API_HOST", "RUN_ID", "LOG_MODEL", "MODE",
                     "RESUME")
    },
    "SWANLAB_MODE": shown(
        "says where a run goes", _MODE, f"{_SWANLAB}test_the_variable_s_mode_is_case_sensitive"
    ),
    **{f"SWANLAB_MODE={mode}": shown("is one of three", _MODE)
       for mode in ("cloud", "local", "disabled")},
    "SWANLAB_RESUME": shown("says how a run is resumed", _RESUME),
    **{f"SWANLAB_RESUME={mode}": shown("is one of three", _RESUME)
       for mode in ("must", "allow", "never")},
}  # fmt: skip

REPORTING: dict[str, Statement] = {
    **{
        f"report_to={name}": shown(
            "names its tracker", f"{_NAMES}test_a_name_stands_for_the_tracker_that_has_it"
        )
        for name in (
            "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte",
            "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
        )
    },
    "report_to=none": shown("names none", f"{_NAMES}test_nothing_is_none_and_an_empty_list"),
    "report_to: a list": shown(
        "names trackers in order",
        f"{_NAMES}test_a_list_keeps_its_order_and_names_nothing_twice",
    ),
    "report_to: another name": shown(
        "is an error with the names that there are",
        f"{_NAMES}test_an_unknown_name_is_an_error_that_lists_what_is_known",
    ),
}  # fmt: skip

OF_TRACKERS = {**TRACKERS, **VARIABLES, **REPORTING}
