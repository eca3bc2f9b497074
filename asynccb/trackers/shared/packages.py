"""
Check for vendors' packages, which some trackers need and our extras install.

Promises: looking for a package does not import it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from asynccb._ground.exceptions import ConfigurationError


def is_installed(package: str) -> bool:
    """Tell whether a top-level package can be imported."""
    return find_spec(package) is not None


def require(package: str, extra: str, tracker: str) -> None:
    """Raise `ConfigurationError`, with the extra's name, if a tracker's package is missing."""
    if not is_installed(package):
        raise ConfigurationError(
            f"{tracker} requires {package} to be installed: run `pip install 'asynccb[{extra}]'`"
        )


def folder_of(package: str) -> Path | None:
    """Return the folder of a package; None if it is unknown."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None
