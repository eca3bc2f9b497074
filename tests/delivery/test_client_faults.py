"""The HTTP client against servers that break off, never end, send too much, or say no."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import anyio
import pytest

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.bodies import FileBody, FormBody
from asynccb.delivery.client import Client
from asynccb.delivery.rate import Bucket
from asynccb.delivery.transport import Transport
from tests.delivery.test_client import failure
from tests.support.surroundings import go_home
from tests.trackers.scripted import Answer, CutError, Request, in_turn, scripted, silence

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path)


async def test_an_answer_that_is_cut_in_its_middle_is_transient() -> None:
    error = await failure(Answer(200, b'{"a": 1}', cut_after=3))
    assert isinstance(error, TransientError)


async def test_an_answer_that_comes_a_byte_at_a_time_ends_with_the_total_time() -> None:
    error = await failure(
        Answer(200, bytes(100_000), pause=0.05), transport=Transport(timeout=5.0, total=0.3)
    )
    assert isinstance(error, TransientError)
    assert "not complete after 0.3" in str(error)


async def test_an_answer_without_end_is_given_up_when_it_is_too_large() -> None:
    error = await failure(Answer(200, bytes(1 << 20), times=1 << 12))
    assert isinstance(error, TransientError)
    assert "more than 16 MiB" in str(error)


async def test_an_answer_that_unpacks_to_too_much_is_given_up() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    error = await failure(Answer(200, bomb, {"Content-Encoding": "gzip"}))
    assert isinstance(error, TransientError)
    assert "more than 16 MiB" in str(error)


async def test_an_answer_that_is_packed_though_we_ask_for_none_is_read() -> None:
    packed = Answer(200, gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip"})
    async with scripted(in_turn(packed)) as server:
        client = Client(server.url)
        assert await client.get("a") == {"a": 1}
        await client.close()
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_broken_packing_is_transient() -> None:
    error = await failure(Answer(200, b"no gzip at all", {"Content-Encoding": "gzip"}))
    assert isinstance(error, TransientError)


async def test_the_page_of_an_error_without_end_still_tells_the_status() -> None:
    error = await failure(Answer(400, bytes(1 << 20), times=1 << 12))
    assert isinstance(error, RejectedError)


async def test_redirects_are_never_followed_so_that_none_can_go_in_a_circle() -> None:
    async with scripted(in_turn(Answer(307, b"", {"Location": "/things"}))) as server:
        client = Client(server.url)
        with pytest.raises(AccessError, match="redirected"):
            await client.post("things", {})
        await client.close()
    assert len(server.requests) == 1


async def test_a_name_that_does_not_resolve_is_transient() -> None:
    client = Client("http://no-such-host.invalid")
    with pytest.raises(TransientError, match="got no answer"):
        await client.get("a")
    await client.close()


async def test_no_message_quotes_a_credential_that_the_server_quotes() -> None:
    echo = Answer(400, f"you sent Bearer {SECRET}; sid={SECRET}".encode())
    error = await failure(echo, headers={"Authorization": f"Bearer {SECRET}"})
    assert "you sent Bearer ***" in str(error)
    assert SECRET not in str(error)


async def test_statuses_mean_what_the_tracker_says() -> None:
    statuses = Statuses(
        again=frozenset({409}),
        reject=frozenset({501, 403}),
        give_up=frozenset({404}),
        wait_headers=("Retry-After", "Retry-After-Custom"),
    )
    kinds = {409: TransientError, 501: RejectedError, 403: RejectedError, 404: AccessError}
    for status, kind in kinds.items():
        assert type(await failure(Answer(status), statuses=statuses)) is kind
    waits = await failure(Answer(429, b"", {"retry-after-custom": "1.5"}), statuses=statuses)
    assert isinstance(waits, TransientError)
    assert waits.retry_after == 1.5


async def test_a_client_that_was_told_to_wait_waits_with_every_next_request() -> None:
    async with scripted(in_turn(Answer(429, b"", {"Retry-After": "0.5"}), Answer())) as server:
        client = Client(server.url)
        with pytest.raises(TransientError):
            await client.get("a")
        begin = time.monotonic()
        await client.get("b")
        assert time.monotonic() - begin > 0.3
        await client.close()


async def test_each_request_takes_a_token() -> None:
    async with scripted(in_turn(Answer())) as server:
        client = Client(server.url, rate=Bucket(20.0, 1.0))
        begin = time.monotonic()
        for _ in range(4):
            await client.get("a")
        assert time.monotonic() - begin > 0.12
        await client.close()


async def test_expired_headers_are_renewed_once_and_the_request_sent_again() -> None:
    async def token_of(request: Request) -> Answer:
        return Answer(200 if request.headers.get("cookie") == "sid=new" else 401)

    renewals: list[str] = []

    async def renew() -> dict[str, str]:
        renewals.append("new")
        return {"Cookie": "sid=new"}

    async with scripted(token_of) as server:
        client = Client(server.url, headers={"Cookie": "sid=old"}, renew=renew)
        await client.get("a")
        await client.get("b")
        await client.close()
    assert renewals == ["new"]
    assert len(server.requests) == 3


async def test_headers_that_stay_refused_after_renewal_are_an_access_error() -> None:
    async def renew() -> dict[str, str]:
        return {"Authorization": "no better"}

    error = await failure(Answer(401), headers={"Authorization": "bad"}, renew=renew)
    assert isinstance(error, AccessError)


async def test_an_address_elsewhere_is_asked_without_our_headers(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"weights")
    async with scripted(in_turn(Answer())) as bucket, scripted(in_turn(Answer())) as server:
        client = Client(server.url, headers={"Authorization": SECRET})
        signed = f"{bucket.url}/f?signature={SECRET}"
        await client.request("PUT", signed, content=FileBody(tmp_path / "f"))
        await client.close()
    (request,) = bucket.requests
    assert (request.target, request.body) == (f"/f?signature={SECRET}", b"weights")
    assert "authorization" not in request.headers
    assert server.requests == []


async def test_clients_of_one_origin_share_no_cookie_and_no_header() -> None:
    cookie = Answer(200, b"{}", {"Set-Cookie": f"sid={SECRET}; Path=/"})
    async with scripted(in_turn(cookie)) as server:
        one, other = Client(server.url, headers={"X-Key": SECRET}), Client(server.url)
        for client in (one, other, one):
            await client.get("a")
        await one.close()
        await other.get("a")
        await other.close()
    assert all("cookie" not in request.headers for request in server.requests)
    assert ["x-key" in request.headers for request in server.requests] == [True, False, True, False]


async def test_a_body_is_packed_on_demand_and_the_same_each_time() -> None:
    async with scripted(in_turn(Answer())) as server:
        client = Client(server.url)
        for _ in range(2):
            await client.post("a", {"values": [1.5] * 100}, compress=True)
        await client.close()
    one, other = server.requests
    assert one.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(one.body)) == {"values": [1.5] * 100}
    assert one.body == other.body


async def test_a_form_holds_its_fields_and_its_file(tmp_path: Path) -> None:
    from email import message_from_bytes

    (tmp_path / "f").write_bytes(b"\0weights\r\n" * 100_000)
    form = FormBody(tmp_path / "f", "file", 'a "b".bin', {"summary": "größe"})
    async with scripted(in_turn(Answer())) as server:
        client = Client(server.url)
        await client.request("POST", "upload", content=form)
        await client.close()
    (request,) = server.requests
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    text, file = message_from_bytes(head + request.body).get_payload()  # type: ignore[misc]
    assert text.get_payload(decode=True).decode() == "größe"  # type: ignore[union-attr]
    assert file.get_payload(decode=True) == (tmp_path / "f").read_bytes()  # type: ignore[union-attr]
    assert file.get_filename() == "a %22b%22.bin"  # type: ignore[union-attr]


async def test_a_file_that_is_cut_on_its_way_is_transient_and_goes_whole_the_next_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "f").write_bytes(bytes(8 << 20))
    async with scripted(in_turn(Answer())) as server:
        server.cut_bodies = [1 << 20]
        client = Client(server.url)
        with pytest.raises(TransientError):
            await client.put_file("f", tmp_path / "f")
        await client.put_file("f", tmp_path / "f")
        await client.close()
    (request,) = server.requests
    assert len(request.body) == 8 << 20


async def test_a_server_that_is_down_is_asked_by_one_of_its_clients_at_a_time() -> None:
    down, asked_while_down = True, 0

    async def maybe(request: Request) -> Answer:
        nonlocal asked_while_down
        asked_while_down += down
        if down:
            raise CutError
        return Answer()

    async with scripted(maybe) as server:
        clients = [Client(server.url) for _ in range(10)]
        with pytest.raises(TransientError):
            await clients[0].get("a")
        async with anyio.create_task_group() as group:
            answered: list[Client] = []

            async def ask(client: Client) -> None:
                nonlocal down
                try:
                    await client.get("a")
                except TransientError:
                    down = False  # the one that tried; all others go on with the next answer
                answered.append(client)

            for client in clients:
                group.start_soon(ask, client)
        for client in clients:
            await client.close()
    assert asked_while_down == 2
    assert len(answered) == 10


async def test_a_dead_server_costs_clients_of_another_one_nothing() -> None:
    async with scripted(silence) as dead, scripted(in_turn(Answer())) as live:
        stuck = Client(dead.url, transport=Transport(timeout=0.1))
        for _ in range(3):
            with pytest.raises(TransientError):
                await stuck.get("a")
        free = Client(live.url)
        for _ in range(20):
            await free.get("a")
        assert len(live.requests) == 20
        await stuck.close()
        await free.close()
