"""The HTTP client against a server that misbehaves on purpose."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from asynccb._ground.exceptions import AccessError, DeliveryError, RejectedError, TransientError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.bodies import chunks
from asynccb.delivery.client import Client
from asynccb.delivery.transport import Transport
from tests.support.surroundings import go_home
from tests.trackers.scripted import Answer, CutError, certificate, in_turn, scripted, silence

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path)


async def failure(answer: Answer | type[CutError], **options: object) -> DeliveryError:
    """Return what a POST raises when the server answers so."""
    async with scripted(in_turn(answer)) as server:
        client = Client(server.url, **options)  # type: ignore[arg-type]
        with pytest.raises(DeliveryError) as caught:
            await client.post("things", {})
        await client.close()
        return caught.value


async def test_a_post_sends_json_below_the_base_and_returns_the_decoded_answer() -> None:
    async with scripted(in_turn(Answer(body=b'{"id": 7}'))) as server:
        client = Client(f"{server.url}/prefix/")
        assert await client.post("api/things", {"name": "ä", "values": [1, 2.5]}) == {"id": 7}
        await client.close()
    request = server.requests[0]
    assert (request.method, request.target) == ("POST", "/prefix/api/things")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"name": "ä", "values": [1, 2.5]}


async def test_a_post_whose_answer_may_be_empty_takes_that_and_no_page_of_a_proxy() -> None:
    async with scripted(in_turn(Answer(body=b""), Answer(body=b"<html>"))) as server:
        client = Client(server.url)
        assert await client.post("things", {}, may_be_empty=True) is None
        with pytest.raises(TransientError, match="not JSON"):
            await client.post("things", {}, may_be_empty=True)
        await client.close()


async def test_a_get_encodes_its_parameters() -> None:
    async with scripted(in_turn(Answer(body=b"[]"))) as server:
        client = Client(server.url)
        assert await client.get("things", {"name": "a b&c"}) == []
        await client.close()
    assert server.requests[0].target == "/things?name=a+b%26c"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_transient(status: int) -> None:
    error = await failure(Answer(status, b"busy"))
    assert isinstance(error, TransientError)
    assert error.retry_after is None


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_an_access_error_that_says_what_to_do(status: int) -> None:
    error = await failure(Answer(status, b"<html>no</html>"), hint="set THE_KEY")
    assert isinstance(error, AccessError)
    assert "set THE_KEY" in str(error)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_another_client_error_is_a_rejection_with_status_and_code(status: int) -> None:
    error = await failure(Answer(status, b'{"error_code": "BAD_REQUEST", "message": "odd"}'))
    assert isinstance(error, RejectedError)
    assert (error.status, error.code) == (status, "BAD_REQUEST")


async def test_a_number_is_the_code_of_an_error_where_it_is_no_status() -> None:
    error = await failure(Answer(400, b'{"msg": "odd", "code": 400, "sdk_error_code": 90999}'))
    assert isinstance(error, RejectedError)
    assert error.code == "90999"


LATIN_1 = '{"message": "momentanément indisponible"}'.encode("latin-1")
DEEP = b"[" * 100_000


@pytest.mark.parametrize("body", [LATIN_1, DEEP])
@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_that_cannot_be_decoded_may_pass(status: int, body: bytes) -> None:
    assert isinstance(await failure(Answer(status, body)), TransientError)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"error_code": 5}', b"\xff", LATIN_1, DEEP]
)
async def test_a_rejection_without_a_code_is_still_a_rejection(body: bytes) -> None:
    error = await failure(Answer(400, body))
    assert isinstance(error, RejectedError)
    assert error.code is None


async def test_a_redirect_is_an_access_error_that_names_the_target_without_its_query() -> None:
    target = f"https://u:{SECRET}@login.example/sso?token={SECRET}"
    error = await failure(Answer(302, b"", {"Location": target}))
    assert isinstance(error, AccessError)
    assert "https://login.example/sso" in str(error)
    assert SECRET not in str(error)


async def test_a_redirect_to_what_is_no_address_is_an_access_error_without_it() -> None:
    error = await failure(Answer(302, b"", {"Location": f"http://[{SECRET}"}))
    assert isinstance(error, AccessError)
    assert SECRET not in str(error)


async def test_a_success_that_is_no_json_is_the_page_of_something_between_and_transient() -> None:
    error = await failure(Answer(200, b"<html>Welcome to the hotel network</html>"))
    assert isinstance(error, TransientError)
    assert "hotel network" in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        (
            {
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
                "Retry-After": "Wed, 21 Oct 2015 07:29:30 GMT",
            },
            90.0,
        ),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "9" * 400}, 3600.0),
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, 3600.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": f"Wed, 21 Oct {'9' * 30} 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_both_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = await failure(Answer(503, b"", headers))
    assert isinstance(error, TransientError)
    assert error.retry_after == seconds


async def test_a_cut_connection_is_transient() -> None:
    assert isinstance(await failure(CutError), TransientError)


async def test_a_server_that_is_away_is_transient() -> None:
    async with scripted(in_turn(Answer())) as server:
        pass
    client = Client(server.url)
    with pytest.raises(TransientError, match="got no answer"):
        await client.get("things")
    await client.close()


async def test_a_server_that_never_answers_is_transient_after_the_time_out() -> None:
    async with scripted(silence) as server:
        client = Client(server.url, transport=Transport(timeout=0.05))
        with pytest.raises(TransientError, match="ReadTimeout"):
            await client.get("things")
        await client.close()


@pytest.mark.parametrize("base", ["ftp://host", "http://", "//host"])
async def test_an_address_that_cannot_be_asked_is_an_access_error(base: str) -> None:
    client = Client(base)
    with pytest.raises(AccessError, match="check the address"):
        await client.get("things")
    await client.close()


async def test_a_message_names_the_request_and_the_beginning_of_the_body_only() -> None:
    error = await failure(Answer(400, b"why\n not " + b"x" * 5000))
    text = str(error)
    assert text.startswith("POST http://127.0.0.1:")
    assert "/things was answered with 400: why not xxx" in text
    assert len(text) < 300


async def test_a_server_with_errors_of_its_own_form_is_quoted_by_its_own_rules() -> None:
    body = json.dumps({"padding": "x" * 300, "said": [17, f"no room for {SECRET}"]}).encode()

    def error(content: bytes) -> tuple[str, str] | None:
        return None if b"said" not in content else ("17", json.loads(content)["said"][1])

    rules = {"statuses": Statuses(error=error), "headers": {"Authorization": f"Bearer {SECRET}"}}
    found = await failure(Answer(400, body), **rules)
    assert isinstance(found, RejectedError)
    assert str(found).endswith("was answered with 400: no room for ***")
    assert found.code == "17"
    proxied = await failure(Answer(400, b'{"code": "P1"} of a proxy'), **rules)
    assert "of a proxy" in str(proxied)


async def test_no_message_repr_or_state_shows_a_credential() -> None:
    async with scripted(in_turn(Answer(400), Answer(503), Answer(401), CutError)) as server:
        base = server.url.replace("//", f"//user:{SECRET}@")
        client = Client(base, headers={"Authorization": f"Bearer {SECRET}"})
        shown = [repr(client)]
        for _ in range(4):
            with pytest.raises(DeliveryError) as caught:
                await client.get("things", {"sig": SECRET})
            shown += [str(caught.value), repr(caught.value)]
        await client.close()
    assert SECRET not in "".join(shown)
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("odd", ["\n", "ü", "\0"])
def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(odd: str) -> None:
    with pytest.raises(AccessError, match="Authorization header") as caught:
        Client("http://host", headers={"Authorization": f"Bearer {SECRET}{odd}"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1, 3 << 20])
async def test_a_file_arrives_whole_with_its_length_announced(tmp_path: Path, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    file = tmp_path / "weights.bin"
    file.write_bytes(content)
    async with scripted(in_turn(Answer(body=b""))) as server:
        client = Client(server.url)
        await client.put_file("files/a%20b", file)
        await client.close()
    request = server.requests[0]
    assert (request.method, request.target) == ("PUT", "/files/a%20b")
    assert request.headers["content-length"] == str(size)
    assert "transfer-encoding" not in request.headers
    assert request.body == content


async def test_a_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    client = Client("http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError):
        await client.put_file("files/a", tmp_path / "gone")
    await client.close()


async def test_connections_are_kept_and_opened_anew_after_close() -> None:
    async with scripted(in_turn(Answer())) as server:
        client = Client(server.url)
        await client.get("a")
        await client.close()
        await client.get("b")
        await client.close()
    assert [request.target for request in server.requests] == ["/a", "/b"]


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(in_turn(Answer())) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        client = Client("http://tracker.invalid")
        await client.get("a")
        await client.close()
    assert proxy.requests[0].target == "http://tracker.invalid/a"


@pytest.mark.parametrize("proxy", [f"nonsense://u:{SECRET}@h", f"http://u:{SECRET}@h:port"])
async def test_a_proxy_that_is_none_is_an_access_error_that_does_not_quote_it(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(AccessError, match="HTTP_PROXY") as caught:
        await Client("http://host").get("a")
    assert SECRET not in str(caught.value)


async def test_a_file_that_gets_shorter_while_it_is_sent_is_an_os_error(tmp_path: Path) -> None:
    file = tmp_path / "shrinking"
    file.write_bytes(bytes(3 << 20))
    announced = chunks(file, 4 << 20)
    with pytest.raises(OSError, match="shorter"):
        _ = [chunk async for chunk in announced]


async def test_a_certificate_counts_only_if_it_is_trusted(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(file)
    async with scripted(in_turn(Answer(body=b'"in"')), tls) as server:
        stranger = Client(server.url)
        with pytest.raises(TransientError, match="certificate is not trusted"):
            await stranger.get("a")
        assert server.requests == []
        for transport in (
            Transport(authority=str(file)),
            Transport(verify=False),
            Transport(authority=str(file), certificate=str(file)),
            Transport(verify=False, certificate=str(file)),
        ):
            client = Client(server.url, transport=transport)
            assert await client.get("a") == "in"
            await client.close()
        await stranger.close()


async def test_a_certificate_file_that_is_none_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    client = Client("https://127.0.0.1:9", transport=Transport(authority=str(tmp_path / "bad.pem")))
    with pytest.raises(AccessError, match="certificates"):
        await client.get("a")


def test_importing_the_client_loads_neither_httpx_nor_torch() -> None:
    check = "import sys, asynccb.delivery.client; print({'httpx', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
