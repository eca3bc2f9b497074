"""
A secret in a variable is seen in nothing that is written, said or shown.

What cannot be helped is the companion's environment: it is the training's own, with the variables
that its trackers read, and a user's processes are readable to that user (`/proc/PID/environ`).
"""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from launching import command, environment

TOKEN, PASSWORD, IN_URL, IN_PROXY, HUB = (f"s3cr+t/{name}" for name in "abcde")
SECRETS = (TOKEN, PASSWORD, IN_URL, IN_PROXY, HUB)


class Refuses(BaseHTTPRequestHandler):
    """Answer 401 to everything, with the credentials in the answer, as some servers do."""

    def answer(self) -> None:
        own, proxy = self.headers["Authorization"], self.headers["Proxy-Authorization"]
        self.server.shown.update(filter(None, (own, proxy)))  # type: ignore[attr-defined]
        body = f"not you: {own}".encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    server.shown = set()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever).start()
    yield server
    server.shutdown()
    server.server_close()


def forms(secret: str) -> Iterator[bytes]:
    """Yield what a secret may look like in a URL, a header or a file."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield quote(secret).encode()
    for user in ("ada", "proxy"):
        yield base64.b64encode(f"{user}:{secret}".encode())


VARIABLES = {
    "token": {"MLFLOW_TRACKING_TOKEN": TOKEN},
    "password": {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": PASSWORD},
    "url": {"MLFLOW_TRACKING_URI": f"http://ada:{quote(IN_URL, safe='')}@ADDRESS"},
    "proxy": {"HTTP_PROXY": f"http://proxy:{quote(IN_PROXY, safe='')}@ADDRESS", "NO_PROXY": ""},
    "dead proxy": {"HTTP_PROXY": f"http://proxy:{quote(IN_PROXY, safe='')}@127.0.0.1:9"},
}


@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.parametrize("where", VARIABLES)
def test_a_secret_is_in_no_file_no_log_no_text_and_no_command_line(
    tmp_path: Path, refusing: ThreadingHTTPServer, where: str
) -> None:
    address = f"127.0.0.1:{refusing.server_port}"
    given = {key: text.replace("ADDRESS", address) for key, text in VARIABLES[where].items()}
    done = subprocess.run(
        command("keep_secrets", tmp_path / "output"),
        env={
            **environment(),
            "MLFLOW_TRACKING_URI": f"http://{address}",
            "HF_TOKEN": HUB,
            "http_proxy": given.get("HTTP_PROXY", ""),
            **given,
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert bool(refusing.shown) == (where != "dead proxy")  # type: ignore[attr-defined]
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.endswith(".segment") for name in written)
    assert any(name.endswith("companion.log") for name in written)
    assert b"MLflowCallback" in done.stderr
    for name, data in {**written, "output": done.stdout, "errors": done.stderr}.items():
        for secret in SECRETS:
            assert not [form for form in forms(secret) if form in data], name
