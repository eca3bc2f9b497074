"""
What stands before an MLflow server to make it an AzureML workspace: addresses, tokens and limits.

After azureml-mlflow 1.62 and the limits that Microsoft publishes. Used as a front's rules.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from tests.trackers.front import pass_on
from tests.trackers.scripted import Answer, Request

WORKSPACE = (
    "/subscriptions/sub-1/resourceGroups/group-1"
    "/providers/Microsoft.MachineLearningServices/workspaces/space-1"
)
_MLFLOW = f"/mlflow/v2.0{WORKSPACE}"
_HISTORY = f"/history/v1.0{WORKSPACE}"
_PER_METRIC, _PARAMS, _SIGNED = 250, 200, "sig=signed-by-the-service"


def web_token(name: str, seconds: float) -> str:
    """Return a JSON web token that ends in so many seconds; nobody has signed it."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"name": name, "exp": int(time.time() + seconds)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), "c2lnbmF0dXJl"])


class AzureML:
    """Hold a workspace's state beside that of the MLflow server."""

    def __init__(self, upstream: str, token: str, job: str | None = None) -> None:
        self.upstream = upstream
        self.tokens = {token}
        """Those that are taken."""
        self.next_tokens: list[str] = []
        """Those that the history gives out, one after another."""
        self.job = job
        self.blobs: dict[str, bytes] = {}
        self.url = ""
        """Of the front itself, for addresses of blobs."""
        self.refused: list[str] = []
        self.renewals = 0
        self._blocks: dict[str, dict[str, bytes]] = {}
        self._params: Counter[str] = Counter()

    async def __call__(self, request: Request) -> Answer:
        path = urlsplit(request.target).path
        if path.startswith("/blobs/"):
            return self._blob(request, path.removeprefix("/blobs/"))
        if path == "/tenant-1/oauth2/v2.0/token":
            return self._grant(request)
        if request.headers.get("authorization", "") not in {f"Bearer {t}" for t in self.tokens}:
            return Answer(401, b'{"error": {"code": "UserError", "message": "token"}}')
        if path.startswith(_HISTORY):
            return self._history(request, path.removeprefix(_HISTORY))
        if not path.startswith(f"{_MLFLOW}/api/2.0/"):
            return self._refuse(404, f"no such address: {path}")
        return self._over_limit(request, path) or await pass_on(
            self.upstream, request, request.target.removeprefix(_MLFLOW)
        )

    def _refuse(self, status: int, why: str) -> Answer:
        self.refused.append(why)
        body = {"error_code": "INVALID_PARAMETER_VALUE", "message": why}
        return Answer(status, json.dumps(body).encode())

    def _over_limit(self, request: Request, path: str) -> Answer | None:
        body = json.loads(request.body) if request.body else {}
        if path.endswith("/runs/update") and body["run_id"] == self.job:
            return self._refuse(400, "the state of a job is the service's")
        if path.endswith("/runs/log-batch"):
            names = Counter(metric["key"] for metric in body.get("metrics", []))
            if names and max(names.values()) > _PER_METRIC:
                return self._refuse(400, "FieldName=MetricV2Dto.Value/Count, Limit=250")
            new = len(body.get("params", []))
            if self._params[body["run_id"]] + new > _PARAMS:
                return self._refuse(400, "FieldName=Parameters, Limit=200")
            self._params[body["run_id"]] += new
        return None

    def _history(self, request: Request, path: str) -> Answer:
        if request.method == "GET" and path.endswith("/token"):
            self.renewals += 1
            token = self.next_tokens.pop(0)
            self.tokens = {token}
            ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
            return Answer(200, json.dumps({"token": token, "expiryTimeUtc": ends}).encode())
        if request.method == "POST" and path.endswith("/artifacts/batch/metadata"):
            run = path.split("/runs/")[1].split("/")[0]
            wanted = [entry["path"] for entry in json.loads(request.body)["paths"]]
            places = {p: {"contentUri": f"{self.url}/blobs/{run}/{p}?{_SIGNED}"} for p in wanted}
            found = {"artifacts": {}, "artifactContentInformation": places, "errors": {}}
            return Answer(200, json.dumps(found).encode())
        return self._refuse(404, f"no such history: {path}")

    def _blob(self, request: Request, name: str) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        if "authorization" in request.headers or query.get("sig") != ["signed-by-the-service"]:
            return self._refuse(403, "a blob is asked for by its signed address alone")
        if "x-ms-version" not in request.headers or request.method != "PUT":
            return self._refuse(400, "no version")
        part = query.get("comp", [""])[0]
        if part == "block":
            blocks = self._blocks.setdefault(name, {})
            blocks[query["blockid"][0]] = request.body
            return Answer(201, b"")
        if name in self.blobs:
            return Answer(409, b"<Error><Code>BlobAlreadyExists</Code></Error>")
        if part == "blocklist":
            listed = request.body.decode().split("<Latest>")[1:]
            names = [entry.partition("<")[0] for entry in listed]
            self.blobs[name] = b"".join(self._blocks[name][block] for block in names)
        elif request.headers.get("x-ms-blob-type") != "BlockBlob":
            return self._refuse(400, "no type")
        else:
            self.blobs[name] = request.body
        return Answer(201, b"")

    def _grant(self, request: Request) -> Answer:
        form = {k: v[0] for k, v in parse_qs(request.body.decode()).items()}
        if form != {
            "grant_type": "client_credentials",
            "client_id": "user-1",
            "client_secret": "secret-of-the-principal",
            "scope": "https://management.azure.com/.default",
        }:
            return self._refuse(401, "no such principal")
        (token,) = self.tokens
        return Answer(200, json.dumps({"access_token": token, "expires_in": 3600}).encode())
