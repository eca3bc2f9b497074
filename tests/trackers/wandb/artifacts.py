"""Artifacts of the W&B loopback server: from a digest, by way of signed addresses, to a version."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

STORAGE: Final = {
    "version": 1,
    "storagePolicy": "wandb-storage-policy-v1",
    "storagePolicyConfig": {"storageLayout": "V2"},
}


def b64md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@dataclass
class Upload:
    """Hold what a signed address takes."""

    headers: dict[str, str] = field(default_factory=dict)
    """Headers that the bytes must come with."""
    md5: str | None = None
    """Base64 of the bytes' MD5; None takes any."""
    content: bytes | None = None


@dataclass
class Artifact:
    """Hold one version of an artifact."""

    number: int
    input: dict[str, Any]
    state: str = "PENDING"
    aliases: set[str] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)
    parts: dict[str, list[Upload]] = field(default_factory=dict)
    manifest: Upload | None = None

    @property
    def id(self) -> str:
        return base64.b64encode(f"Artifact:{self.number}".encode()).decode()

    @property
    def name(self) -> str:
        found: str = self.input["artifactCollectionName"]
        return found

    @property
    def metadata(self) -> Any:
        return json.loads(self.input["metadata"] or "null")

    @property
    def contents(self) -> dict[str, bytes]:
        """The files, as the manifest has them."""
        assert self.manifest is not None
        assert self.manifest.content is not None
        names = json.loads(self.manifest.content)["contents"]
        return {name: self.uploads[name].content or b"" for name in names}

    def check(self) -> str | None:
        """Return what keeps the artifact from being committed, or None."""
        if self.manifest is None or self.manifest.content is None:
            return "its manifest is not there"
        manifest = json.loads(self.manifest.content)
        if {key: manifest.get(key) for key in STORAGE} != STORAGE:
            return f"its manifest is not one of version 1: {manifest}"
        whole = hashlib.md5(b"wandb-artifact-manifest-v1\n")
        for name, entry in sorted(manifest["contents"].items()):
            upload = self.uploads.get(name)
            if upload is None or upload.content is None:
                return f"{name} was never uploaded"
            if b64md5(upload.content) != entry["digest"] or len(upload.content) != entry["size"]:
                return f"{name} is not what the manifest says"
            if not entry["birthArtifactID"]:
                return f"{name} was born in no artifact"
            whole.update(f"{name}:{entry['digest']}\n".encode())
        if whole.hexdigest() != self.input["digest"]:
            return "its digest is not that of its manifest"
        return None
