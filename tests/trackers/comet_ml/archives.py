"""What stands in Comet's offline archives."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Archive:
    """Hold an archive's content."""

    name: str
    about: dict[str, Any]
    messages: list[dict[str, Any]]
    assets: dict[str, bytes]
    """By the name of the file in the archive."""

    @property
    def error(self) -> str | None:
        error: str | None = self.about["customer_error_message"]
        assert self.about["customer_error_reported"] is (error is not None)
        return error

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the payloads of the messages of a kind."""
        return [message["payload"] for message in self.messages if message["type"] == kind]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [payload["metric"] for payload in self.of("metric_msg")]


def archived(folder: Path) -> list[Archive]:
    """Return the archives in a folder, by name."""
    return [_read(path) for path in sorted(folder.glob("*.zip"))]


def _read(path: Path) -> Archive:
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
        content = {name: packed.read(name) for name in names}
    assert len(content) == len(names)
    about = json.loads(content.pop("experiment.json"))
    messages = [json.loads(line) for line in content.pop("messages.json").splitlines()]
    return Archive(path.name, about, messages, content)
