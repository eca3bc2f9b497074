"""
The companion's entry point: `python -m asynccb._companion RING SOCKET LOCK`.

The three arguments are inherited file descriptors.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

import anyio
import anyio.abc
import stamina.instrumentation

from asynccb._companion.connection import Conversation
from asynccb._companion.messages import Hello, Notice
from asynccb._companion.service import Service
from asynccb._journal.file_lock import FileLock
from asynccb._ring.ring import RingReader


class _Forward(logging.Handler):
    """Forwards log records to the training process; the companion's log file has them as well."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def emit(self, record: logging.LogRecord) -> None:
        self._service.say(Notice(record.levelno, self.format(record)))


def _set_up_logging(service: Service) -> None:
    log = logging.getLogger("asynccb")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_Forward(service))
    written = logging.StreamHandler(sys.stderr)  # the parent redirected it to the log file
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(written)


async def _main(ring: int, channel: int) -> None:
    stream = await anyio.abc.UNIXSocketStream.from_socket(socket.socket(fileno=channel))
    async with stream:
        conversation = Conversation(stream)
        hello = await conversation.receive()
        if not isinstance(hello, Hello):
            raise SystemExit(f"expected a Hello message first, not {type(hello).__name__}")
        sys.path.extend(path for path in hello.paths if path not in sys.path)
        reader = RingReader(ring)
        service = Service(reader, conversation, hello)
        _set_up_logging(service)
        await service.run()
        reader.close()


def main() -> None:
    """Serve until the training process has ended and everything is delivered."""
    # A terminal's Ctrl-C and hang-up are for the training process. It tells us when to exit.
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    # The lanes count and log retries; stamina's own reports would duplicate them.
    stamina.instrumentation.set_on_retry_hooks(())
    ring, channel, held = map(int, sys.argv[1:])
    for descriptor in (ring, channel, held):  # processes started by hooks must not inherit them
        os.set_inheritable(descriptor, False)
    lock = FileLock(held)
    code = 1
    try:
        anyio.run(_main, ring, channel)
        code = 0
    except Exception:  # nothing runs after this that could report it
        logging.getLogger("asynccb").exception("the companion failed")
    finally:
        logging.shutdown()
        lock.let_go()
        os._exit(code)  # do not wait for threads that hooks left behind


if __name__ == "__main__":
    main()
