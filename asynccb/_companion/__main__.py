"""The companion's entry: `python -m asynccb._companion RING SOCKET LOCK`, inherited descriptors."""

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
    """Pass what is logged here on to the training process, beside the companion's own log file."""

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
    written = logging.StreamHandler(sys.stderr)  # the parent has put the log file there
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(written)


async def _main(ring: int, channel: int) -> None:
    stream = await anyio.abc.UNIXSocketStream.from_socket(socket.socket(fileno=channel))
    async with stream:
        conversation = Conversation(stream)
        hello = await conversation.receive()
        if not isinstance(hello, Hello):
            raise SystemExit(f"expected a greeting, not {type(hello).__name__}")
        sys.path.extend(path for path in hello.paths if path not in sys.path)
        reader = RingReader(ring)
        service = Service(reader, conversation, hello)
        _set_up_logging(service)
        await service.run()
        reader.close()


def main() -> None:
    """Serve until the training process has ended and everything is delivered."""
    # A terminal's Ctrl-C and hang-up are for the training process, which tells us what to do.
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    # Retries are counted and logged by the lanes; stamina's own reports would double them.
    stamina.instrumentation.set_on_retry_hooks(())
    ring, channel, held = map(int, sys.argv[1:])
    for descriptor in (ring, channel, held):  # not for what a hook may start
        os.set_inheritable(descriptor, False)
    lock = FileLock(held)
    code = 1
    try:
        anyio.run(_main, ring, channel)
        code = 0
    except Exception:  # the last thing that is ever said
        logging.getLogger("asynccb").exception("the companion fails")
    finally:
        logging.shutdown()
        lock.let_go()
        os._exit(code)  # a thread that a hook has left behind is not waited for


if __name__ == "__main__":
    main()
