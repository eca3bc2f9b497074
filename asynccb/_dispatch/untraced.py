"""
Keeps the compiler of torch out: a call from a compiled function is one graph break.

Promises: nothing of torch is imported, and a call costs what it costs without this. It is enough
that torch is there by the time that something is compiled.

Dynamo, the front of `torch.compile`, breaks the graph where a function is called whose attribute
`_torchdynamo_disable` is true; `torch.compiler.disable` sets it so, in torch 2.6 to 2.13. Dynamo
then runs the call as it is, but would compile each of its frames as it comes to it. That ends with
a mark on the code of the first frame, which torch 2.7 and later obey for all frames below it.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType
from typing import Any, Final, TypeVar

_Class = TypeVar("_Class", bound=type[Any])
_codes: Final[list[CodeType]] = []
"""Code of the marked functions, until the compiler has been told of it."""
_REASON: Final = (
    "asynccb logs, and runs callbacks; for fullgraph=True return the values, and log them outside "
    "of the compiled function"
)


class _Disabled:
    """The value of `_torchdynamo_disable`, which Dynamo asks for before it would run a call."""

    def __bool__(self) -> bool:
        keep_out()  # torch may have been imported after the run was made
        return True


_DISABLED: Final = _Disabled()


def untraced(owner: _Class) -> _Class:
    """Mark all methods of a class, as a decorator; properties stay traceable: they do nothing."""
    for function in vars(owner).values():
        if isinstance(function, FunctionType):
            function.__dict__.update(
                _torchdynamo_disable=_DISABLED, _torchdynamo_disable_msg=_REASON
            )
            _codes.append(function.__code__)
    return owner


def keep_out() -> None:
    """Tell the compiler, where torch is imported, to run the marked functions as they are."""
    frames: Any = sys.modules.get("torch._C._dynamo.eval_frame")
    if frames is None or not _codes:
        return
    if hasattr(frames, "set_code_exec_strategy"):  # from torch 2.7 on
        skip = frames._FrameAction.SKIP
        strategy = frames._FrameExecStrategy(skip, skip)  # this frame, and all below it
        while _codes:
            frames.set_code_exec_strategy(_codes.pop(), strategy)
    # In torch 2.6 one can only name our folder, and only to a Dynamo that is imported.
    elif (rules := sys.modules.get("torch._dynamo.trace_rules")) is not None:
        _codes.clear()
        rules.add(__name__.partition(".")[0])
