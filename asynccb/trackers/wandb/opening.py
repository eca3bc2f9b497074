"""
Make a W&B run, or find the run that is to be continued.

Promises: asking twice makes one run, and our part of it begins at the same line both times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from asynccb._ground.exceptions import AccessError
from asynccb._state.run_description import RunDescription
from asynccb.trackers.wandb.api import Known, RunInfo, WandbServer
from asynccb.trackers.wandb.settings import WandbSettings
from asynccb.trackers.wandb.values import Bases, base36, bases_in

logger = logging.getLogger("asynccb")

_ID_LENGTH: Final = 12


def is_of(run: Mapping[str, Any], base_url: str, settings: WandbSettings) -> bool:
    """Tell whether the settings lead to a run of an interrupted training; say so where not."""
    was = [base_url, run["project"], run["entity"], run["run_id"]]
    now = [
        settings.base_url,
        settings.project,
        settings.entity or run["entity"],
        settings.run_id or run["run_id"],
    ]
    if was != now:
        logger.warning(
            "W&B: the interrupted training logged elsewhere (%s); the resumed one does not go on "
            "there, but with %s",
            *("/".join(was), "/".join(now)),
        )
    return was == now


def find_bases(
    settings: WandbSettings, run: RunDescription, known: Known | None, earlier: Bases | None
) -> Bases:
    """
    Return the beginning of our part of the run; `known` is the server's part.

    A note there of an earlier process of the same training has precedence. `earlier` is the known
    progress of the interrupted training that this one resumes. Raises `AccessError` if the run must
    exist and does not, or the reverse.
    """
    continues = settings.run_id is None or earlier is not None
    if known is None:
        if settings.resume == "must":
            raise AccessError(
                f"there is no W&B run {settings.run_id} in {settings.project}, and resume is "
                "'must': see WANDB_RUN_ID, WANDB_PROJECT and WANDB_ENTITY"
            )
        return Bases()
    noted = bases_in(known.config, run)
    if noted is not None:
        return noted
    if settings.resume == "never" and not continues:
        raise AccessError(
            f"there is a W&B run {settings.run_id} already, and resume is 'never': give another "
            "id, or resume='allow' to continue that one"
        )
    last = {**known.summary, **known.last}
    least = earlier or Bases()
    return Bases(
        max(known.history, least.history),
        max(known.console, least.console),
        max(int(last.get("_step", -1)) + 1, least.step),
        # A training that resumes another counts its time from the beginning of that one.
        0.0 if continues else float(last.get("_runtime", 0.0)),
    )


def id_of(settings: WandbSettings, run: RunDescription) -> str:
    """Return the given id, or an id that every process of this run makes alike."""
    return settings.run_id or base36(int(run.key, 16), _ID_LENGTH)


def display_name(settings: WandbSettings, run: RunDescription) -> str | None:
    """Return the run's display name; None leaves it to the server."""
    return settings.name or getattr(run.args, "run_name", None) or settings.usual_name


async def open_run(
    server: WandbServer,
    settings: WandbSettings,
    run: RunDescription,
    known: Known | None,
    config: str,
) -> RunInfo:
    """Make the run, or take it up, with all that describes it."""
    return await server.upsert(
        id_of(settings, run),
        settings.project,
        id=None if known is None else known.id,
        entity=settings.entity,
        displayName=display_name(settings, run),
        notes=settings.notes,
        tags=settings.tags or None,
        groupName=settings.group,
        jobType=settings.job_type,
        host=run.host or None,
        program=run.script or None,
        config=config,
    )
