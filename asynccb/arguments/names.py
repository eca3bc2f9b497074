"""
Names of arguments that `TrainingArguments` does not have: what each is called now, or what to use.

Names of transformers up to 5.24. Sources: the fields of its `TrainingArguments` 5.24, and those
that its versions 3 to 5 removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from asynccb._ground.exceptions import ConfigurationError

RENAMED: Final = {
    "eval_batch_size": "per_device_eval_batch_size",
    "evaluate_during_training": "eval_strategy",
    "evaluation_strategy": "eval_strategy",
    "include_inputs_for_metrics": "include_for_metrics",
    "include_tokens_per_second": "include_num_input_tokens_seen",
    "no_cuda": "use_cpu",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "train_batch_size": "per_device_train_batch_size",
    "xpu_backend": "ddp_backend",
}
"""The name of today for each earlier name, or name of a property."""

_OPTIMIZERS: Final = "pass an optimizer of your own as optimizers=(optimizer, None)"
_PARALLEL: Final = "several GPUs train with DDP, started by torchrun; for other ways use a loop of "
_LOOP: Final = f"{_PARALLEL}your own with asynccb.CallbackDispatcher"
_MODEL: Final = "change the model before it is passed to the Trainer"
_LOADER: Final = "give a train_dataset that has the order and form that you want"
_SWITCH: Final = "call the function of torch before the Trainer is made"
_DROPPED: Final = "leave it out, it has no effect any more"

ABSENT: Final = {
    "accelerator_config": f"it does not use accelerate: {_LOOP}",
    "adafactor": _OPTIMIZERS,
    "average_tokens_across_devices": "batches count alike, whatever tokens they hold",
    "bf16_full_eval": "convert the model with model.to(torch.bfloat16)",
    "dataloader_in_order": "batches always come in order",
    "dataloader_multiprocessing_context": "set it with torch.multiprocessing.set_start_method",
    "dataloader_persistent_workers": "workers start anew with each epoch",
    "ddp_broadcast_buffers": f"DDP's default applies: {_LOOP}",
    "ddp_bucket_cap_mb": f"DDP's default applies: {_LOOP}",
    "ddp_static_graph": f"DDP's default applies: {_LOOP}",
    "debug": "use torch.autograd.detect_anomaly, or a callback",
    "deepspeed": _LOOP,
    "do_predict": "call trainer.predict(dataset)",
    "do_train": "call trainer.train()",
    "eval_do_concat_batches": "batches are always concatenated; batch_eval_metrics=True gives them "
    "to compute_metrics one by one",
    "eval_use_gather_object": "predictions of any type are gathered",
    "fp16_backend": "fp16=True is torch.amp",
    "fp16_full_eval": "convert the model with model.to(torch.float16)",
    "fp16_opt_level": "fp16=True is torch.amp, which has no level",
    "fsdp": _LOOP,
    "fsdp_config": _LOOP,
    "fsdp_min_num_params": _LOOP,
    "fsdp_transformer_layer_cls_to_wrap": _LOOP,
    "full_determinism": "call torch.use_deterministic_algorithms(True); seed sets the generators",
    "group_by_length": _LOADER,
    "half_precision_backend": "fp16=True is torch.amp",
    "hub_revision": "upload in a callback's on_save",
    "jit_mode_eval": "use torch_compile=True",
    "length_column_name": _LOADER,
    "liger_kernel_config": _MODEL,
    "local_rank": "torchrun sets the environment variable LOCAL_RANK",
    "logging_dir": "use TensorBoardCallback(log_dir=...), or the environment variable "
    "TENSORBOARD_LOGGING_DIR",
    "mp_parameters": _LOOP,
    "neftune_noise_alpha": f"add a hook to the embeddings: {_MODEL}",
    "optim_target_modules": _OPTIMIZERS,
    "overwrite_output_dir": "give another output_dir; train(resume_from_checkpoint=True) goes on "
    "from the last checkpoint there, and train() begins anew",
    "parallelism_config": _LOOP,
    "past_index": _MODEL,
    "push_to_hub_organization": "give hub_model_id='organization/name'",
    "ray_scope": "search with a library for it, one Trainer for each trial",
    "save_safetensors": "weights are always saved as safetensors",
    "sharded_ddp": _LOOP,
    "skip_memory_metrics": "log torch.cuda.max_memory_allocated() in a callback",
    "tf32": f"torch.backends.cuda.matmul.allow_tf32 = True: {_SWITCH}",
    "torch_compile_backend": "pass torch.compile(model, backend=...) as the model",
    "torch_empty_cache_steps": "call torch.cuda.empty_cache() in a callback's on_step_end",
    "torchdynamo": "use torch_compile=True",
    "tpu_metrics_debug": _DROPPED,
    "tpu_num_cores": "it does not train on TPUs",
    "train_sampling_strategy": _LOADER,
    "use_cache": "set model.config.use_cache",
    "use_ipex": "use torch_compile=True",
    "use_legacy_prediction_loop": _DROPPED,
    "use_liger_kernel": _MODEL,
    "use_mps_device": "the device is chosen automatically; use_cpu=True trains on the CPU",
}
"""What to do instead, for arguments of transformers without a counterpart here."""


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ConfigurationError` for the first argument that is unknown, and name the right one."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigurationError(_explain(name, names))


def _explain(name: str, known: list[str]) -> str:
    if (now := RENAMED.get(name)) is not None:
        return f"TrainingArguments has no {name!r}: it is called {now!r}"
    if (instead := ABSENT.get(name)) is not None:
        return f"asynccb.Trainer has no {name!r}: {instead}"
    close = get_close_matches(name, [*known, *RENAMED, *ABSENT], n=1)
    if not close:
        return f"TrainingArguments has no {name!r}; its arguments are {', '.join(sorted(known))}"
    if close[0] in known:
        return f"TrainingArguments has no {name!r}: do you mean {close[0]!r}?"
    return f"TrainingArguments has no {name!r}. {_explain(close[0], known)}"
