"""Reading switches from environment variables, as transformers reads them, but without guessing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asynccb._exceptions import ConfigurationError

_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})
_FALSE: Final = frozenset({"", "0", "OFF", "NO", "FALSE"})


def switch(environ: Mapping[str, str], name: str) -> bool:
    """
    Tell whether a variable is switched on; unset and empty are off.

    Raises `ConfigurationError` for a value that is neither; transformers takes it as off.
    """
    value = environ.get(name, "").strip().upper()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ConfigurationError(
        f"the environment variable {name} is {environ[name]!r}; it takes 1, on, yes or true, "
        "or 0, off, no or false"
    )
