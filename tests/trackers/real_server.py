"""A server of a vendor's own package, as a process on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import httpx

from tests.trackers.gate import reserve_port


class RealServer:
    """Start and stop one server; started again, it has the same address and the same data."""

    HEALTH: ClassVar[str]
    """Path that answers once the server is there."""
    SECONDS: ClassVar[float]
    """Longest time that a start may take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reserved = reserve_port()
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and return when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill the server and its workers at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and give its port away."""
        self.stop()
        self._reserved.close()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}{self.HEALTH}", trust_env=False).is_success
        except httpx.TransportError:
            return False
