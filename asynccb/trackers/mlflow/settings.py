"""
An MLflow tracker's settings: where each is read from, and which values are refused.

Promises: an invalid setting raises in the constructor; the stored settings contain no credential.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.mlflow.address import find_address, is_store
from asynccb.trackers.mlflow.values import TAG_LENGTH, entity_key, text_value
from asynccb.trackers.shared.addresses import split
from asynccb.trackers.shared.given import Given

DAGSHUB: Final = "https://dagshub.com"

_RUN_ID: Final = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_EXCERPT: Final = 200
"""Characters of a variable that a message quotes."""


@dataclass(frozen=True)
class MLflowSettings:
    """An MLflow tracker's settings as plain data; `MLflowCallback` documents them."""

    tracking_uri: str
    experiment_name: str | None
    run_id: str | None
    tags: dict[str, str]
    nested_run: bool
    flatten_params: bool
    max_log_params: int | None
    log_artifacts: bool
    folder: str = field(default="", kw_only=True)
    """The training's working directory, in which a new database of this machine keeps artifacts;
    empty for a server."""


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> MLflowSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    given = Given(arguments, environ)
    address = find_address(given["tracking_uri"], environ)
    return MLflowSettings(
        tracking_uri=address,
        experiment_name=given.text("experiment_name", "MLFLOW_EXPERIMENT_NAME"),
        run_id=_run_id(given.text("run_id", "MLFLOW_RUN_ID")),
        tags=_tags(given["tags"], environ.get("MLFLOW_TAGS", "")),
        nested_run=given.switch("nested_run", "MLFLOW_NESTED_RUN"),
        flatten_params=given.switch("flatten_params", "MLFLOW_FLATTEN_PARAMS"),
        max_log_params=_maximum(given["max_log_params"], given.variable("MLFLOW_MAX_LOG_PARAMS")),
        log_artifacts=given.switch("log_artifacts", "HF_MLFLOW_LOG_ARTIFACTS"),
        folder=os.getcwd() if is_store(address) else "",
    )


def is_azure(address: str) -> bool:
    """Return whether an address names an AzureML workspace."""
    return address.lower().startswith("azureml:")


def is_dagshub(address: str, environ: Mapping[str, str]) -> bool:
    """Return whether an address names a repository of DagsHub, or of `DAGSHUB_CLIENT_HOST`."""
    host = split(environ.get("DAGSHUB_CLIENT_HOST", "").strip() or DAGSHUB)
    parts = split(address)
    if host is None or parts is None:
        return False
    ours = parts.netloc.rpartition("@")[2].lower() == host.netloc.lower()
    return ours and parts.path.rstrip("/").endswith(".mlflow")


def is_hosted(address: str, environ: Mapping[str, str]) -> bool:
    """Return whether an address belongs to a service that has a tracker of its own."""
    return is_azure(address) or is_dagshub(address, environ)


def _run_id(value: str | None) -> str | None:
    if value is not None and not _RUN_ID.fullmatch(value):
        raise ConfigurationError(
            f"run_id (or MLFLOW_RUN_ID) is {value!r}, which is no id of an MLflow run: copy it "
            "from the run's page"
        )
    return value


def _maximum(given: object, variable: str | None) -> int | None:
    value = given if given is not None else variable
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigurationError(
        f"max_log_params (or MLFLOW_MAX_LOG_PARAMS) is {value!r}; it takes an integer from 0"
    )


def _tags(given: object, variable: str) -> dict[str, str]:
    tags = given if given is not None else _decoded(variable)
    if not isinstance(tags, Mapping):
        raise ConfigurationError(f"tags are {tags!r}; they take a mapping of names to values")
    return {_tag_name(name): _tag_value(name, value) for name, value in tags.items()}


def _decoded(variable: str) -> object:
    if not variable.strip():
        return {}
    try:
        tags = json.loads(variable)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"MLFLOW_TAGS is {variable[:_EXCERPT]!r}, which is no JSON ({error}); it takes an "
            'object such as {"team": "vision"}'
        ) from None
    if not isinstance(tags, dict):
        raise ConfigurationError(
            f"MLFLOW_TAGS is {variable[:_EXCERPT]!r}; it takes a JSON object such as "
            '{"team": "vision"}'
        )
    return tags


def _tag_name(name: object) -> str:
    if not isinstance(name, str) or entity_key(name) != name:
        nearest = f", such as {entity_key(name)!r}" if isinstance(name, str) else ""
        raise ConfigurationError(
            f"MLflow takes no tag named {name!r}: use at most 250 letters, digits, and _ - . : / "
            f"or space{nearest}"
        )
    return name


def _tag_value(name: str, value: object) -> str:
    text = text_value(value)
    if len(text) > TAG_LENGTH:
        raise ConfigurationError(
            f"the MLflow tag {name!r} has {len(text)} characters; the server keeps {TAG_LENGTH}"
        )
    return text
