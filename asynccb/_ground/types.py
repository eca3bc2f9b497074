"""Types that several rooms share."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, TypeAlias

RunStatus: TypeAlias = Literal["finished", "failed", "killed", "crashed"]
"""How a run ended: by itself, by an exception, by a signal that it handled, or with no report."""


Placement: TypeAlias = Literal["thread", "process"]


Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "raise"]


OnError: TypeAlias = Literal["warn", "disable", "raise"]


Ranks: TypeAlias = Literal["all", "local_zero", "world_zero"]


class Dataclass(Protocol):
    """An instance of any dataclass, for `dataclasses.fields`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
