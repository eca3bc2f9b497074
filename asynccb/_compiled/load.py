"""The choice between the compiled code and plain Python."""

from __future__ import annotations

import os
import platform
from types import ModuleType
from typing import Final

from asynccb._compiled.shared import Shared

REORDERS: Final = platform.machine() not in ("x86_64", "AMD64")
"""Whether another core may see this machine's stores in a different order."""


def load_compiled() -> ModuleType | None:
    """
    Return the compiled code, or None where plain Python serves.

    Plain Python serves under `ASYNCCB_PURE=1`, where the package was installed without a compiler,
    and on machines that reorder stores.
    """
    if REORDERS or os.environ.get("ASYNCCB_PURE") == "1":
        return None
    try:
        from asynccb._compiled import hot
    except ImportError:
        return None
    return hot


def make_shared() -> Shared:
    """Return the shared fields of a new run, for the code that serves it."""
    compiled = load_compiled()
    return Shared() if compiled is None else compiled.Shared()
