"""
The tags of scalars and texts in an event file.

TensorBoard's readers (2.21) keep one kind of data for each tag, the first that they meet, and take
any text as a tag. Tags that have a meaning of their own are therefore not given to metrics.
"""

from __future__ import annotations

from typing import Final

from asynccb.trackers.names import marked

TEXT_SUFFIX: Final = "/text_summary"
"""End of a text's tag; the text plugin's pages leave it out."""
SESSION_START: Final = "_hparams_/session_start_info"
SESSION_END: Final = "_hparams_/session_end_info"
ARGUMENTS: Final = "args"
MODEL: Final = "model_config"
"""Texts of the run's own: its arguments, and its model's configuration."""


def scalar_tag(name: str) -> str:
    """Return a number's tag, which is never that of a text."""
    is_taken = name.endswith(TEXT_SUFFIX) or name in (SESSION_START, SESSION_END)
    return marked(name, name) if is_taken or not name else name


def text_tag(name: str) -> str:
    """Return a text's tag without its suffix; it is never that of a text of the run's own."""
    return marked(name, name) if name in (ARGUMENTS, MODEL, "") else name
