"""
Find the Comet experiment of a training, make it, or name it in an archive.

Promises: a training has one experiment, however often it is begun. A resumed training continues the
experiment of the training before. Somebody else's experiment is continued only on request.
"""

from __future__ import annotations

from asynccb._ground.exceptions import AccessError
from asynccb._state.run_description import RunDescription
from asynccb.trackers.comet_ml.api import CometServer
from asynccb.trackers.comet_ml.archive import About
from asynccb.trackers.comet_ml.settings import CometSettings
from asynccb.trackers.comet_ml.values import milliseconds


def key_of(settings: CometSettings, run: RunDescription, earlier: str | None) -> str:
    """Return the experiment's key; `earlier` is that of a training that this one resumes."""
    return earlier or settings.experiment_key or run.key


async def find(
    server: CometServer,
    settings: CometSettings,
    run: RunDescription,
    earlier: str | None,
    *,
    asked: bool,
) -> bool:
    """
    Go on with the experiment, or make it, and tell whether it is a new one.

    `asked` says that this was tried before. Raises `AccessError` if the mode forbids it.
    """
    key, started = key_of(settings, run, earlier), milliseconds(run.started)
    if earlier is None and settings.mode != "get":
        if await server.add(key, settings.project_name, settings.workspace, started):
            return True
        # There is one. It is ours where we have chosen its key, or an answer may have been lost.
        if settings.mode == "create" and settings.experiment_key is not None and not asked:
            raise AccessError(
                f"there is a Comet experiment {key} already, and mode 'create' makes a new one: "
                "give another key, none, or another mode"
            )
    await server.get(key, started)
    return False


def archive_name(settings: CometSettings, run: RunDescription, earlier: str | None) -> str:
    """Return the name of this training's archive: an experiment may have several."""
    key = key_of(settings, run, earlier)
    if earlier is None and settings.experiment_key is None:
        return key
    return f"{key}-{(run.training or run.key)[:8]}"


def about(settings: CometSettings, run: RunDescription, earlier: str | None) -> About:
    """Return an archive's description; a resumed training's archive needs the one before it."""
    return About(
        key=key_of(settings, run, earlier),
        project_name=settings.project_name,
        workspace=settings.workspace,
        tags=settings.tags,
        strategy=settings.mode if earlier is None else "get",
        chosen=earlier is not None or settings.experiment_key is not None,
        start=milliseconds(run.started),
    )
