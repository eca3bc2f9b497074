"""
`AsyncCallbacks`: asynccb's callbacks in a `transformers.Trainer`.

May import: _ground, _ring, _state, callbacks, checkpoint, _lanes, _dispatch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.huggingface.bridge import AsyncCallbacks

__all__ = [
    "AsyncCallbacks",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "bridge"))
