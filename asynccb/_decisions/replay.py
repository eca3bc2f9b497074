"""Another run's decisions, applied at the same steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from asynccb._decisions.schedule import Ticket
from asynccb._decisions.trace import FORMAT, TRACE_FILE, Entry, Header
from asynccb._ground.exceptions import TraceError
from asynccb._state.control import FLAGS, NO_OPINION, Decision


class Replay:
    """The decisions of another run, given as answers for the callbacks."""

    def __init__(self, path: Path, *, owner: bool) -> None:
        """
        Read a trace, or the trace in a folder; raise `TraceError` if it cannot be read.

        One rank of a run is the `owner`; it keeps other processes from replaying the file.
        """
        self._path = _find_trace(path)
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115 - open as long as it is locked
        except OSError as error:
            raise TraceError(
                f"replay is {str(path)!r}, and no trace can be read there ({error.strerror}); "
                f"give a {TRACE_FILE}, or a folder that contains one"
            ) from None
        try:
            if owner:
                self._lock()
            first, *rest = self._file.read().splitlines() or [b""]
            self.header = self._decode(1, first, Header)
            self._entries = {
                (entry.training, entry.emission or -entry.boundary, entry.callback): entry
                for number, line in enumerate(rest, 2)
                for entry in [self._decode(number, line, Entry)]
            }
        except BaseException:
            self._file.close()
            raise

    def check(self, header: Header) -> None:
        """Raise `TraceError` if the trace is another run's."""
        for name in msgspec.structs.fields(Header):
            theirs, ours = getattr(self.header, name.name), getattr(header, name.name)
            if theirs != ours:
                raise TraceError(
                    f"{self._path} is the trace of another run: its {name.name} is {theirs!r}, "
                    f"and here it is {ours!r}"
                )

    def answer(self, ticket: Ticket, training: int) -> None:
        """Settle a ticket as it was settled in the trace."""
        entry = self._entries.pop((training, ticket.emission, ticket.name), None)
        if entry is None:
            ticket.settle(NO_OPINION, "decided")
            return
        if (entry.event, entry.step) != (ticket.event, ticket.step):
            raise TraceError(
                f"{self._path} is the trace of another run: there {entry.callback} decided on "
                f"{entry.event} of step {entry.step}, where here comes {ticket.event} of step "
                f"{ticket.step}"
            )
        ticket.settle(entry.decision, entry.outcome)

    def other(self, callback: str, training: int, emission: int, boundary: int) -> Decision | None:
        """Return the decision from outside or from other ranks, or None."""
        entry = self._entries.pop((training, emission or -boundary, callback), None)
        return None if entry is None else entry.decision

    def check_passed(self, training: int, boundary: int) -> None:
        """Raise `TraceError` if a decision of an earlier boundary found no event of its own."""
        entry = next(iter(self._entries.values()), None)  # they are in the order of application
        if entry is not None and (entry.training, entry.boundary) < (training, boundary):
            raise TraceError(
                f"{self._path} is the trace of another run: there {entry.callback} decided on "
                f"{entry.event} of step {entry.step} for step {entry.boundary}, and here that step "
                "has passed without this event"
            )

    def forget(self, emission: int, boundary: int) -> None:
        """Leave out the entries that a resumed run has behind it."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if (entry.emission > emission if entry.emission else entry.boundary > boundary)
        }

    def close(self) -> None:
        """Let others replay the trace."""
        self._file.close()

    def _lock(self) -> None:
        import fcntl  # not there on Windows, where everything else here works

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TraceError(
                f"{self._path} is being replayed by another process; wait for it, or copy the file"
            ) from None

    def _decode(self, number: int, line: bytes, kind: type[Any]) -> Any:
        try:
            found = msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TraceError(f"line {number} of {self._path} is damaged: {error}") from None
        if isinstance(found, Header) and found.format != FORMAT:
            raise TraceError(f"{self._path} has format {found.format}; this version reads {FORMAT}")
        if isinstance(found, Entry) and not set(found.flags) <= set(FLAGS):
            raise TraceError(f"line {number} of {self._path} is damaged: unknown flags")
        return found


def _find_trace(path: Path) -> Path:
    """Return a trace: the file itself, the one in a folder, or the only one of the runs below."""
    if not path.is_dir() or (path / TRACE_FILE).exists():
        return path / TRACE_FILE if path.is_dir() else path
    found = sorted([*path.glob(f"*/{TRACE_FILE}"), *path.glob(f"asynccb/*/{TRACE_FILE}")])
    if len(found) > 1:
        raise TraceError(
            f"replay is {str(path)!r}, where several runs have left a trace; give one of "
            f"{', '.join(map(str, found))}"
        )
    return found[0] if found else path / TRACE_FILE
