"""What is hidden of credentials, in whatever form they are quoted."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.exceptions import DeliveryError
from asynccb.delivery.answers import Reply
from asynccb.delivery.client import Client
from asynccb.delivery.secrecy import header_secrets, hide, proxy_secrets
from tests.trackers.scripted import Answer, Request, scripted

SECRET = 's3cr+t/"<é>'


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def forms(secret: str) -> list[str]:
    escaped = json.dumps(secret, ensure_ascii=False)[1:-1]
    return [secret, quote(secret), quote(secret, safe=""), escaped, html.escape(secret)]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": basic("ada", SECRET)},
        {"X-Api-Key": SECRET},
        {"Cookie": f"a=b; {SECRET}"},
    ],
)
def test_a_credential_of_a_header_is_hidden_in_every_form(headers: dict[str, str]) -> None:
    hidden = header_secrets(headers)
    for form in [*forms(SECRET), *headers.values()]:
        assert SECRET not in hide(f"you sent {form}!", hidden)
        assert form not in hide(f"you sent {form}!", hidden)


def test_a_short_password_is_hidden_too() -> None:
    assert hide("the pin 7531", header_secrets({"Authorization": basic("ada", "7531")})) == (
        "the pin ***"
    )


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_credential_of_a_proxy_is_hidden_in_every_form(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://ada:{quote(SECRET, safe='')}@127.0.0.1:9")
    hidden = proxy_secrets()
    for form in [*forms(SECRET), basic("ada", SECRET).split()[1]]:
        assert form not in hide(f"you sent {form}!", hidden)


@pytest.mark.usefixtures("no_proxy")
def test_a_token_in_the_place_of_the_user_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://t0ken@127.0.0.1:9")
    assert hide("t0ken", proxy_secrets()) == "***"


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("proxy", ["127.0.0.1:9", "http://127.0.0.1:9", "http://@127.0.0.1:9", ""])
def test_a_proxy_without_a_credential_hides_nothing(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert proxy_secrets() == ()


@given(st.text(min_size=1), st.text(min_size=9, max_size=2000))
def test_no_excerpt_holds_the_beginning_of_a_long_credential(before: str, secret: str) -> None:
    secret = "".join(secret.split()) or "x"
    reply = Reply(400, {}, f"{before}{secret}".encode("utf-8", "replace"), "GET", (secret,))
    assert secret not in reply.excerpt
    apart = f"{before}{secret}".index(secret) == len(before)  # or its beginning is in `before`
    if apart and before.isalnum() and before.isascii() and len(before) < 50 and len(secret) > 20:
        assert reply.excerpt == f"{before}***"


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("status", [400, 403, 407, 500, 302])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_quotes_its_own_credentials_gets_them_into_no_message(
    scheme: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(request: Request) -> Answer:
        sent = request.headers["proxy-authorization"]
        asked.append(sent)
        code = json.dumps({"error_code": f"{sent} {SECRET}"}).encode()
        return Answer(
            status, code, {"Location": f"http://elsewhere/{quote(SECRET)}"}, reason=f"no {sent}"
        )

    asked: list[str] = []
    async with scripted(echo) as server:
        proxy = server.url.replace("//", f"//ada:{quote(SECRET, safe='')}@")
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        client = Client(f"{scheme}://tracker.invalid")
        with pytest.raises(DeliveryError) as caught:
            await client.get("x")
        await client.close()
    assert asked == [basic("ada", SECRET)]
    seen = repr([caught.value, vars(caught.value), caught.value.__cause__])
    for form in [*forms(SECRET), asked[0].split()[1]]:
        assert form not in seen
