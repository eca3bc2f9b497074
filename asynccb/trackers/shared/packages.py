"""
Packages of vendors that some trackers need, and an extra of ours installs.

Promises: looking for one imports nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from asynccb._ground.exceptions import ConfigurationError


def is_installed(package: str) -> bool:
    """Tell whether a top-level package can be imported."""
    return find_spec(package) is not None


def require(package: str, extra: str, tracker: str) -> None:
    """Raise `ConfigurationError`, naming the extra, where a tracker's package is missing."""
    if not is_installed(package):
        raise ConfigurationError(
            f"{tracker} requires {package} to be installed: run `pip install 'asynccb[{extra}]'`"
        )


def folder_of(package: str) -> Path | None:
    """Return where a package lies; None where it cannot be told."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None
