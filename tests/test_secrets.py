"""
A secret in a variable is seen in nothing that is written, said or shown.

What cannot be helped is the companion's environment: it is the training's own, with the variables
that its trackers read, and a user's processes are readable to that user (`/proc/PID/environ`).
"""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.launching import command, environment

TOKEN, PASSWORD, IN_URL, IN_PROXY, HUB, SAVED = (f"s3cr+t/{name}" for name in "abcdef")
SECRETS = (TOKEN, PASSWORD, IN_URL, IN_PROXY, HUB, SAVED)


def plain(header: str) -> str:
    """Return the credentials of a header as whoever checks them sees them."""
    kind, _, value = header.partition(" ")
    return base64.b64decode(value).decode() if kind == "Basic" else value


class Refuses(BaseHTTPRequestHandler):
    """Answer 401 to everything, with the credentials in the answer, as some servers do."""

    def answer(self) -> None:
        names = ("Authorization", "Proxy-Authorization")
        sent = [value for name in names if (value := self.headers[name])]
        self.server.shown.update(sent)  # type: ignore[attr-defined]
        quoted = " ".join([*sent, *map(plain, sent)])
        body = f'{{"error_code": "{quoted}", "message": "not you: {quoted}"}}'.encode()
        self.send_response(401, f"not {quoted}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815

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


PROXY = f"http://proxy:{quote(IN_PROXY, safe='')}@"

VARIABLES = {
    "token": {"MLFLOW_TRACKING_TOKEN": TOKEN},
    "password": {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": PASSWORD},
    "url": {"MLFLOW_TRACKING_URI": f"http://ada:{quote(IN_URL, safe='')}@ADDRESS"},
    "file": {"HOME": "SAVED"},
    "proxy": {"HTTP_PROXY": f"{PROXY}ADDRESS"},
    "proxy for https": {
        "HTTPS_PROXY": f"{PROXY}ADDRESS",
        "MLFLOW_TRACKING_URI": "https://tracker.invalid",
    },
    "proxy for all": {"ALL_PROXY": f"{PROXY}ADDRESS"},
    "dead proxy": {"HTTP_PROXY": f"{PROXY}127.0.0.1:9"},
}


@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.parametrize("where", VARIABLES)
def test_a_secret_is_in_no_file_no_log_no_text_and_no_command_line(
    tmp_path: Path, refusing: ThreadingHTTPServer, where: str
) -> None:
    address = f"127.0.0.1:{refusing.server_port}"
    home = tmp_path / "home"
    (home / ".mlflow").mkdir(parents=True)
    given = {
        key: text.replace("ADDRESS", address).replace("SAVED", str(home))
        for key, text in VARIABLES[where].items()
    }
    (home / ".mlflow" / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = {SAVED}\n"
    )
    given_environment = {
        **environment(),
        "MLFLOW_TRACKING_URI": f"http://{address}",
        "HF_TOKEN": HUB,
        "NO_PROXY": "",
        **given,
    }
    done = subprocess.run(
        command("keep_secrets", tmp_path / "output"),
        env=given_environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    later = [
        subprocess.run(
            [sys.executable, "-m", "asynccb", *words, str(tmp_path / "output")],
            env=given_environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        for words in (["ls"], ["sync", "--timeout", "1"])
    ]
    assert bool(refusing.shown) == (where != "dead proxy")  # type: ignore[attr-defined]
    output = (tmp_path / "output").rglob("*")
    written = {str(path): path.read_bytes() for path in output if path.is_file()}
    for run in later:
        written |= {f"{run.args} {run.returncode}": run.stdout + run.stderr}
    assert any(name.endswith(".segment") for name in written)
    assert any(name.endswith("companion.log") for name in written)
    assert b"MLflowCallback" in done.stderr
    for name, data in {**written, "output": done.stdout, "errors": done.stderr}.items():
        for secret in SECRETS:
            assert not [form for form in forms(secret) if form in data], name
