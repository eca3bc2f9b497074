"""The scripted server of the test kit, and what only our own tests need beside it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import httpx

from asynccb.testing import (
    Answer,
    CutError,
    Request,
    Script,
    ScriptedServer,
    in_turn,
    scripted,
    serving,
    silence,
)

__all__ = [
    "Answer",
    "CutError",
    "Request",
    "Script",
    "ScriptedServer",
    "certificate",
    "forward",
    "in_turn",
    "scripted",
    "serving",
    "serving_with",
    "silence",
]


async def forward(upstream: str, request: Request) -> Answer:
    """Return what another server answers to the same request."""
    headers = {k: v for k, v in request.headers.items() if k in ("content-type", "authorization")}
    async with httpx.AsyncClient(base_url=upstream, trust_env=False) as client:
        answer = await client.request(
            request.method, request.target, content=request.body, headers=headers
        )
    return Answer(answer.status_code, answer.content)


def certificate(folder: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "loopback.pem"
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


def serving_with(file: Path) -> ssl.SSLContext:
    """Return what a server needs to answer with a certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    return tls
