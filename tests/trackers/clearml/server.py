"""
A ClearML server on loopback: API and file server at one address, as strict as the vendor's.

Every request is checked by the vendor's own request classes (`schema.py`) and answered in
the envelope of server 2.0, with its subcodes; tasks take the transitions that it takes, the index
of scalars holds single precision and one value for each title, series and iteration, and lines of
the console are stored anew each time that they come. The vendor's package works against it.
"""

from __future__ import annotations

import base64
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

from tests.trackers.clearml.schema import Schema
from tests.trackers.clearml.tasks import Refused, Tasks
from tests.trackers.scripted import Answer, Request, ScriptedServer, serving

ACCESS: Final = "ACCESSKEY0123456789"
SECRET: Final = "secret-0123456789-0123456789"
_API: Final = re.compile(r"/(?:v(\d+(?:\.\d+)?)/)?([a-z]+\.[a-z_]+)")
_LARGEST: Final = 15_728_640
_FLOAT: Final = 3.4028234663852886e38
_READS: Final = ("get_all", "get_by_id")
Faults = Callable[[Request], Answer | None]


class ClearMLServer:
    """Answer requests; what is kept is for tests to look at."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.secret = SECRET
        self.tasks = Tasks()
        self.files: dict[str, bytes] = {}
        self.problems: list[str] = []
        """What was refused, and why."""
        self.sent: list[tuple[str, Any]] = []
        """Actions with their bodies; events as one body each line."""
        self.sizes: list[int] = []
        """Bytes of each batch of events."""
        self.faults: Faults = lambda request: None
        self.token_life = 30 * 86400.0
        self.tokens: set[str] = set()
        self.logins = 0
        self.http: ScriptedServer | None = None

    @property
    def url(self) -> str:
        assert self.http is not None
        return self.http.url

    def revoke(self) -> None:
        """Refuse the tokens that were given so far."""
        self.tokens.clear()

    def credentials(self) -> dict[str, str]:
        """Return the environment of a client."""
        return {
            "CLEARML_API_HOST": self.url,
            "CLEARML_WEB_HOST": f"{self.url}/web",
            "CLEARML_FILES_HOST": self.url,
            "CLEARML_API_ACCESS_KEY": ACCESS,
            "CLEARML_API_SECRET_KEY": self.secret,
        }

    async def __call__(self, request: Request) -> Answer:
        fault = self.faults(request)
        if fault is not None:
            return fault
        found = _API.fullmatch(request.target.partition("?")[0])
        action = found[2] if found is not None else ""
        try:
            if found is None:
                return self._file(request)
            data = self._login(request) if action == "auth.login" else self._act(action, request)
            return _envelope(action, data)
        except Refused as error:
            self.problems.append(f"{action or request.method}: {error.status} {error}")
            return _envelope(action, {}, error)

    # -- the API -----------------------------------------------------------------------------------

    def _login(self, request: Request) -> dict[str, Any]:
        given = request.headers.get("authorization", "")
        basic = base64.b64encode(f"{ACCESS}:{self.secret}".encode()).decode()
        if given != f"Basic {basic}" and given.removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, 21, "Unauthorized (invalid credentials)")
        self.logins += 1
        claims = {"exp": time.time() + self.token_life, "api_version": "2.31", "n": self.logins}
        claims |= {"server_version": "2.0.0", "feature_set": "basic", "auth_type": "Bearer"}
        token = ".".join((_encoded({"alg": "HS256", "typ": "JWT"}), _encoded(claims), "c2lnbmVk"))
        self.tokens.add(token)
        return {"token": token}

    def _authorize(self, request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise Refused(401, 30, "Unauthorized (invalid token)")
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        if claims["exp"] < time.time():
            self.tokens.discard(token)
            raise Refused(401, 30, "Unauthorized (token has expired)")

    def _act(self, action: str, request: Request) -> dict[str, Any]:
        self._authorize(request)
        if "content-encoding" in request.headers:
            raise Refused(415, 0, "Unsupported media type")
        if len(request.body) > _LARGEST:
            raise Refused(413, 0, "Request entity too large")
        kind = request.headers.get("content-type", "")
        if action == "events.add_batch":
            lines = [self._json(line) for line in request.body.split(b"\n") if line.strip()]
            if kind not in ("application/json-lines", "application/json") or not lines:
                raise Refused(400, 17, "Batch contains no items")
            self.sizes.append(len(request.body))
            return self._add_events(lines)
        if kind != "application/json":
            raise Refused(400, 12, f"Validation error (Content-Type {kind})")
        body = self._json(request.body)
        self.sent.append((action, body))
        if problem := self.schema.problem(action, body):
            raise Refused(400, 12, f"Validation error ({problem})")
        body.pop("method", None)
        return self.tasks.act(action, body)

    def _json(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise Refused(400, 12, "Validation error (no JSON)") from None

    def _add_events(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        errors: dict[str, int] = {}
        good: list[dict[str, Any]] = []
        for event in lines:
            self.sent.append(("events.add", event))
            if problem := self.schema.event_problem(event):
                raise Refused(400, 12, f"Validation error ({problem})")
            if event["task"] not in self.tasks.tasks:
                name = f"Invalid task id {event['task']}"
                errors[name] = errors.get(name, 0) + 1
                continue
            value = event.get("value", 0.0)
            if not (math.isfinite(value) and abs(value) <= _FLOAT):
                raise Refused(500, 100, "General data error: [float] supports only finite values")
            if type(event.get("iter", 0)) is not int:
                raise Refused(500, 100, "General data error: iter")
            good.append(event)
        for event in good:
            self.tasks.add_event(event)
        if not good:
            raise Refused(400, 131, f"Events not added: {errors}")
        return {"added": len(good), "errors": sum(errors.values()), "errors_info": errors}

    # -- the file server ---------------------------------------------------------------------------

    def _file(self, request: Request) -> Answer:
        self._authorize(request)
        path = unquote(request.target.partition("?")[0]).lstrip("/")
        if request.method == "POST" and not path:
            if "content-encoding" in request.headers:
                return Answer(415)
            stored = dict(_parts(request))
            self.files |= stored
            return Answer(200, json.dumps(list(stored)).encode(), _JSON)
        if path not in self.files:
            return Answer(404, b"not found")
        if request.method == "DELETE":
            del self.files[path]
            return Answer(200)
        return Answer(200, self.files[path])


_JSON: Final = {"Content-Type": "application/json"}


def _envelope(action: str, data: dict[str, Any], error: Refused | None = None) -> Answer:
    status = 200 if error is None else error.status
    meta = {
        "id": uuid.uuid4().hex,
        "trx": uuid.uuid4().hex,
        "endpoint": {"name": action, "requested_version": "2.23", "actual_version": "1.0"},
        "result_code": status,
        "result_subcode": 0 if error is None else error.subcode,
        "result_msg": "OK" if error is None else str(error),
        "error_stack": None,
        "error_data": {},
    }
    return Answer(status, json.dumps({"meta": meta, "data": data}).encode(), _JSON)


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _parts(request: Request) -> Iterator[tuple[str, bytes]]:
    """Yield what a form holds: the name of each field, which is where it goes, and its bytes."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"; filename="[^"]+"', head)
        if name is None:
            raise Refused(400, 0, "a file needs a name")
        yield unquote(name[1].decode()).lstrip("/"), content.removesuffix(b"\r\n")


@contextmanager
def clearml_server(schema: Schema) -> Iterator[ClearMLServer]:
    """Run a server for as long as the block lasts."""
    made = ClearMLServer(schema)
    with serving(made) as http:
        made.http = http
        yield made
