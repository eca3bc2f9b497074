"""Settings of the connection to a server: time-outs and certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Transport:
    """Time-outs and certificates for one server; the defaults suit most servers."""

    timeout: float = 120.0
    """Seconds that a read or write may last without progress."""
    verify: bool = True
    """Whether the server's certificate is verified."""
    authority: str | None = None
    """File or directory with the certificates to trust, instead of the public ones."""
    certificate: str | None = None
    """File with our own certificate and key."""
    total: float = 300.0
    """Seconds that a request and its answer may take; a file adds 100 s for each 1 MB."""

    def tls(self) -> ssl.SSLContext | bool:
        """Return httpx's `verify` argument; raise `OSError` for a file that cannot be used."""
        if self.authority is None and self.certificate is None:
            return self.verify
        folder = self.authority is not None and Path(self.authority).is_dir()
        trust = ssl.create_default_context(
            cafile=None if folder else self.authority, capath=self.authority if folder else None
        )
        if not self.verify:
            trust.check_hostname = False
            trust.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            trust.load_cert_chain(self.certificate)
        return trust


PUBLIC: Final = Transport()
"""For any server with a public certificate."""
