"""A gate before a server on loopback: open it forwards connections, shut it refuses them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_CHUNK = 1 << 16


def reserve_port() -> socket.socket:
    """
    Return a socket that keeps a port of loopback from everybody who does not ask for it by number.

    A server that sets SO_REUSEADDR can listen there meanwhile; while none does, connections are
    refused.
    """
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    return taken


class Gate:
    """Stand before a server; `uri` is the same however often the gate was shut."""

    def __init__(self, upstream: str, reserved: socket.socket) -> None:
        self._upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self._address = reserved.getsockname()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.uri = f"http://127.0.0.1:{self._address[1]}"

    def open(self) -> None:
        """Forward connections from now on."""
        self._listener = socket.create_server(self._address)  # sets SO_REUSEADDR
        self._run(self._accept, self._listener)

    def shut(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._listener is None:
            return
        _end(self._listener)  # wakes the thread that accepts
        self._threads.pop(0).join()
        for connection in self._connections:
            _end(connection)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._connections):
            each.close()
        self._connections.clear()
        self._threads.clear()
        self._listener = None

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._connections.append(client)
                server = socket.create_connection(self._upstream)
                self._connections.append(server)
                self._run(_pump, client, server)
                self._run(_pump, server, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def gate(upstream: str) -> Iterator[Gate]:
    """Put an open gate before a server, for as long as the block lasts."""
    with reserve_port() as reserved:
        it = Gate(upstream, reserved)
        it.open()
        try:
            yield it
        finally:
            it.shut()
