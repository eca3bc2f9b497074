"""The vendor's own reader of SwanLab's run files, in a process of its own that stays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.launching import command


class SwanLabReader:
    """Read the runs below a folder; the process is started when there is something to read."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[str] | None = None

    def runs(self, log_dir: Path) -> list[dict[str, Any]]:
        """Return what each run has, in the order of their names."""
        if not log_dir.exists():
            return []
        if self._process is None:
            kept = {k: v for k, v in os.environ.items() if not k.startswith("SWANLAB")}
            self._process = subprocess.Popen(
                command("trackers/swanlab/reader_program"),
                env={**kept, "HOME": str(self._home)},
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{log_dir.absolute()}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the vendor's reader has failed"
        found: list[dict[str, Any]] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()  # it ends with its input
