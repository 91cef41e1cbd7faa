import asyncio
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from mediarepo.config.federation import OutboundConfig
from mediarepo.outbound.client import Outbound, OutboundResponse
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.ssrf_guard import SystemLookup
from tests.support.origin import (
    PATIENCE,
    Authority,
    Origin,
    Speech,
    answering,
    origin,
    redirecting,
    saying,
    speaking,
)
from tests.support.ports import free_port

LOOPBACK = ["127.0.0.0/8", "::1/128"]
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = replace(PATIENCE, connect_ms=300, headers_ms=300, idle_ms=300, total_ms=900)
BRIEF = replace(SHORT, connect_ms=PATIENCE.connect_ms)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Origin]:
    async with origin(authority, "127.0.0.1", "a.example", "b.example") as running:
        yield running


class Names:
    """Answers lookups: for each name one list of addresses after the other, the last one for ever."""

    def __init__(self, **addresses: Sequence[Sequence[str]]) -> None:
        self.addresses = {f"{name}.example": list(answers) for name, answers in addresses.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answers = self.addresses[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


LOCAL = {"a": [["127.0.0.1"]], "b": [["127.0.0.1"]]}


@asynccontextmanager
async def door(authority: Authority, names: Names | None = None, **config: Any) -> AsyncIterator[Outbound]:
    settings = {"allow_networks": LOOPBACK, "ca_file": str(authority.ca_file), **config}
    async with Outbound(OutboundConfig(**settings), lookup=names or Names(**LOCAL)) as outbound:
        yield outbound


@pytest.fixture
async def outbound(authority: Authority) -> AsyncIterator[Outbound]:
    async with door(authority) as open_door:
        yield open_door


async def text_of(outbound: Outbound, url: str, **arguments: Any) -> bytes:
    async with outbound.get(url, **{"headers": {}, "timeouts": PATIENCE, **arguments}) as answer:
        return await answer.read_all(10_000_000)


async def refusal_of(outbound: Outbound, url: str, **arguments: Any) -> OutboundReason:
    with pytest.raises(OutboundError) as caught:
        await text_of(outbound, url, **arguments)
    return caught.value.reason


async def said(outbound: Outbound, server: Origin, **arguments: Any) -> bytes:
    timeouts = arguments.pop("timeouts", PATIENCE)
    async with outbound.ask(server.target(), "/", headers={}, timeouts=timeouts) as answer:
        return await answer.read_all(10_000_000)


async def refusal_to(outbound: Outbound, server: Origin, **arguments: Any) -> OutboundReason:
    with pytest.raises(OutboundError) as caught:
        await said(outbound, server, **arguments)
    return caught.value.reason


async def test_a_request_target_arrives_byte_for_byte_and_so_does_the_host(outbound: Outbound, server: Origin) -> None:
    request_target = "/a/../b//%2F%7e;x=+?q=%c3%a4&&=:@!$'()*,"
    server.handlers["/b//~;x=+"] = answering(b"here")

    async with outbound.ask(
        server.target("a.example", host_header="name.example:1"),
        request_target,
        headers={"Authorization": "X-Matrix a"},
        timeouts=PATIENCE,
    ) as answer:
        assert answer.status in {200, 404}

    request = server.requests[0]
    assert (request.method, request.raw_path, request.host) == ("GET", request_target, "name.example:1")
    assert (request.headers["Authorization"], request.headers["Accept-Encoding"]) == ("X-Matrix a", "identity")


async def test_redirects_are_answers_when_a_server_is_asked(outbound: Outbound, server: Origin) -> None:
    server.handlers["/"] = redirecting(server.url("/elsewhere"), status=307)

    async with outbound.ask(server.target(), "/", headers={}, timeouts=PATIENCE) as answer:
        assert (answer.status, answer.headers["location"]) == (307, server.url("/elsewhere"))
    assert server.asked() == ["/"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(outbound: Outbound, server: Origin, status: int) -> None:
    server.handlers |= {"/a/b": redirecting("../c?d", status=status), "/c": answering(b"there")}

    async with outbound.get(server.url("/a/b"), headers={}, timeouts=PATIENCE) as answer:
        assert (answer.status, answer.url, await answer.read_all(10)) == (200, server.url("/c?d"), b"there")


async def test_redirect_loops_end(outbound: Outbound, server: Origin) -> None:
    server.handlers["/"] = redirecting("/")

    assert await refusal_of(outbound, server.url("/")) == OutboundReason.TOO_MANY_REDIRECTS
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://10.0.0.1/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://169.254.169.254/latest/meta-data/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://[::ffff:10.0.0.1]/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://[64:ff9b::a00:1]/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://0.0.0.0/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://[::]/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://inside.example/", OutboundReason.FORBIDDEN_ADDRESS),
        ("//inside.example/", OutboundReason.FORBIDDEN_ADDRESS),
        ("https://nowhere.example/", OutboundReason.NAME_NOT_FOUND),
        ("http://127.0.0.1/", OutboundReason.BAD_URL),
        ("file:///etc/passwd", OutboundReason.BAD_URL),
        ("https://0x7f.1/", OutboundReason.BAD_URL),
        ("https://127.0.0.1:0/", OutboundReason.BAD_URL),
        ("//[::1", OutboundReason.BAD_URL),
        ("https://inside\t.example/", OutboundReason.BAD_URL),
    ],
)
async def test_redirects_to_where_nobody_may_go_are_refused(
    authority: Authority, server: Origin, location: str, reason: OutboundReason
) -> None:
    server.handlers["/"] = redirecting(location)
    async with door(authority, Names(inside=[["10.0.0.1"]])) as outbound:
        assert await refusal_of(outbound, server.url("/")) == reason


async def test_headers_do_not_follow_to_another_server_nor_back(
    outbound: Outbound, server: Origin, authority: Authority
) -> None:
    secret = {"Authorization": "Bearer s", "Cookie": "s", "X-Token": "s", "Accept-Language": "eo"}
    async with origin(authority) as other:
        server.handlers |= {"/": redirecting("/near"), "/near": redirecting(other.url("/far"))}
        server.handlers["/back"] = answering(b"")
        other.handlers["/far"] = redirecting(server.url("/back"))

        await text_of(outbound, server.url("/"), headers=secret)

        first, near, back = server.requests
        assert [first.headers.get(name) for name in secret] == ["Bearer s", "s", "s", "eo"]
        assert [near.headers.get(name) for name in secret] == ["Bearer s", "s", "s", "eo"]
        assert [other.requests[0].headers.get(name) for name in secret] == [None, None, None, "eo"]
        assert [back.headers.get(name) for name in secret] == [None, None, None, "eo"]


async def test_a_name_is_looked_up_once_for_checking_and_connecting(authority: Authority, server: Origin) -> None:
    rebinding = Names(a=[["127.0.0.1"], ["10.0.0.1"]])
    server.handlers["/"] = answering(b"of the checked address", headers={"Connection": "close"})
    async with door(authority, rebinding) as outbound:
        assert await text_of(outbound, server.url("/", "a.example")) == b"of the checked address"
        assert rebinding.asked == ["a.example"]
        assert await refusal_of(outbound, server.url("/", "a.example")) == OutboundReason.FORBIDDEN_ADDRESS


async def test_forbidden_addresses_of_a_name_are_left_out(authority: Authority, server: Origin) -> None:
    server.handlers["/"] = answering(b"here")
    mixed = Names(a=[["10.0.0.1", "169.254.169.254", "fe80::1%1", "127.0.0.1", "::ffff:10.0.0.1"]])
    async with door(authority, mixed) as outbound:
        assert await text_of(outbound, server.url("/", "a.example")) == b"here"


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"])
async def test_loopback_is_not_connected_to_by_default(authority: Authority, server: Origin, address: str) -> None:
    async with Outbound(OutboundConfig(ca_file=str(authority.ca_file))) as outbound:
        assert await refusal_of(outbound, server.url("/", address)) == OutboundReason.FORBIDDEN_ADDRESS
        with pytest.raises(OutboundError, match="forbidden address"):
            async with outbound.ask(server.target(address.strip("[]")), "/", headers={}, timeouts=PATIENCE):
                pass
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "a b", "x@y", "", "fe80::1%lo"])
async def test_a_target_that_is_written_oddly_is_refused(outbound: Outbound, server: Origin, host: str) -> None:
    with pytest.raises(OutboundError) as caught:
        async with outbound.ask(server.target(host), "/", headers={}, timeouts=PATIENCE):
            pass

    assert caught.value.reason in {OutboundReason.BAD_URL, OutboundReason.FORBIDDEN_ADDRESS}


async def test_the_certificate_must_be_for_the_name(authority: Authority) -> None:
    async with origin(authority, "a.example") as server, door(authority) as outbound:
        server.handlers["/"] = answering(b"here")

        assert await text_of(outbound, server.url("/", "a.example")) == b"here"
        assert await refusal_of(outbound, server.url("/", "b.example")) == OutboundReason.TLS_FAILED
        assert await refusal_of(outbound, server.url("/")) == OutboundReason.TLS_FAILED


async def test_a_connection_made_for_one_name_is_not_used_for_another(authority: Authority) -> None:
    async with origin(authority, "a.example") as server, door(authority) as outbound:
        server.handlers["/"] = answering(b"here")
        async with outbound.ask(server.target(tls_name="a.example"), "/", headers={}, timeouts=PATIENCE) as answer:
            assert await answer.read_all(10) == b"here"

        with pytest.raises(OutboundError) as caught:
            async with outbound.ask(server.target(tls_name="b.example"), "/", headers={}, timeouts=PATIENCE):
                pass
    assert caught.value.reason == OutboundReason.TLS_FAILED


async def test_certificates_of_an_unknown_authority_are_refused(server: Origin) -> None:
    async with Outbound(OutboundConfig(allow_networks=LOOPBACK)) as outbound:
        assert await refusal_of(outbound, server.url("/")) == OutboundReason.TLS_FAILED


async def test_ipv6_servers_are_met_at_their_address(authority: Authority, outbound: Outbound) -> None:
    async with origin(authority, address="::1") as server:
        server.handlers["/"] = answering(b"here")

        assert await text_of(outbound, server.url("/", "[::1]")) == b"here"
        async with outbound.ask(server.target("::1"), "/", headers={}, timeouts=PATIENCE) as answer:
            assert await answer.read_all(10) == b"here"


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.mark.usefixtures("proxied")
async def test_proxies_of_the_environment_are_not_used(authority: Authority, server: Origin) -> None:
    server.handlers["/"] = answering(b"directly")
    async with door(authority) as outbound:
        assert await text_of(outbound, server.url("/")) == b"directly"


async def test_cookies_are_not_kept(outbound: Outbound, server: Origin) -> None:
    server.handlers["/"] = answering(b"", headers={"Set-Cookie": "a=b"})

    await text_of(outbound, server.url("/", "a.example"))
    await text_of(outbound, server.url("/", "a.example"))

    assert ["Cookie" in request.headers for request in server.requests] == [False, False]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "GZIP"])
async def test_encoded_answers_are_refused(outbound: Outbound, server: Origin, encoding: str) -> None:
    server.handlers["/"] = answering(gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": encoding})

    assert await refusal_of(outbound, server.url("/")) == OutboundReason.ENCODED


async def test_a_redirects_own_encoding_does_not_matter(outbound: Outbound, server: Origin) -> None:
    server.handlers["/"] = answering(b"", status=302, headers={"Location": "/there", "Content-Encoding": "gzip"})
    server.handlers["/there"] = answering(b"plain", headers={"Content-Encoding": "identity"})

    assert await text_of(outbound, server.url("/")) == b"plain"


@pytest.mark.parametrize(
    ("speech", "reason"),
    [
        (saying(OK, *[b"X-Bomb: b\r\n" * 1000] * 200, b"\r\n"), OutboundReason.NOT_HTTP),
        (saying(OK, b"X-Bomb: ", *[b"b" * 10_000] * 1000, b"\r\n\r\n"), OutboundReason.NOT_HTTP),
        (saying(b"HTTP/1.1 200 ", *[b"O" * 10_000] * 1000), OutboundReason.NOT_HTTP),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), OutboundReason.NOT_HTTP),
        (saying(OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), OutboundReason.NOT_HTTP),
        (saying(OK + b"Content-Length: -1\r\n\r\nabcd"), OutboundReason.NOT_HTTP),
        (saying(OK + b"Content-Length: 5\r\n\r\nabcd"), OutboundReason.BROKEN_OFF),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"), OutboundReason.BROKEN_OFF),
        (saying(OK + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\nabc"), OutboundReason.ENCODED),
        (saying(b""), OutboundReason.UNREACHABLE),
    ],
    ids=[
        "many headers",
        "long header",
        "long status",
        "SSH",
        "two lengths",
        "-1",
        "short",
        "chunks",
        "gzip",
        "nothing",
    ],
)
async def test_what_is_no_proper_answer_is_refused_in_words(
    authority: Authority, outbound: Outbound, speech: Speech, reason: OutboundReason
) -> None:
    async with speaking(authority, speech) as server:
        assert await refusal_to(outbound, server) == reason


async def test_chunks_that_turn_into_nonsense_are_not_waited_for(authority: Authority, outbound: Outbound) -> None:
    received = asyncio.Event()

    async def speech(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        await received.wait()
        await saying(b"nonsense\r\n")(reader, writer)

    async with (
        speaking(authority, speech) as server,
        outbound.ask(server.target(), "/", headers={}, timeouts=SHORT) as answer,
    ):
        assert await answer.read() == b"abcd"
        received.set()
        with pytest.raises(OutboundError) as caught:
            await answer.read()
    assert caught.value.reason in {OutboundReason.BROKEN_OFF, OutboundReason.TOO_SLOW}


async def test_errors_name_the_host_and_tell_no_secret(authority: Authority, outbound: Outbound) -> None:
    async with speaking(authority, saying(b"garbage\r\n\r\n")) as server:
        with pytest.raises(OutboundError, match=r"127\.0\.0\.1") as caught:
            async with outbound.ask(
                server.target(), "/?token=query", headers={"Authorization": "header"}, timeouts=PATIENCE
            ):
                pass
    assert "query" not in str(caught.value)
    assert "header" not in str(caught.value)


def repeating(head: bytes, piece: bytes, pause_s: float = 0.0) -> Speech:
    async def speech(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return speech


@pytest.mark.parametrize(
    "speech",
    [
        repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        repeating(OK, b"a", 0.05),
        repeating(b"HTTP/1.1 200 ", b"a", 0.05),
        repeating(OK + b"\r\n", b"x", 0.05),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", 0.05),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x", 0.05),
        repeating(OK + b"Content-Length: 100\r\n\r\n", b"", 60),
        repeating(b"", b"", 60),
    ],
    ids=["100", "header", "status", "body", "chunks", "extension", "trailer", "silent body", "silent"],
)
async def test_who_drips_is_let_go_while_others_are_answered(
    authority: Authority, outbound: Outbound, server: Origin, speech: Speech
) -> None:
    server.handlers["/"] = answering(b"quick")
    async with speaking(authority, speech) as slow:
        waiting = [asyncio.create_task(refusal_to(outbound, slow, timeouts=BRIEF)) for _ in range(20)]
        assert await text_of(outbound, server.url("/")) == b"quick"

        assert set(await asyncio.gather(*waiting)) <= {OutboundReason.TOO_SLOW}


async def test_a_quick_endless_answer_ends_with_its_time_however_slowly_it_is_read(
    authority: Authority, outbound: Outbound
) -> None:
    async def read_slowly(answer: OutboundResponse) -> None:
        while await answer.read():
            await asyncio.sleep(0.05)

    async with (
        speaking(authority, repeating(OK + b"\r\n", b"x" * 100_000)) as server,
        outbound.ask(server.target(), "/", headers={}, timeouts=SHORT) as answer,
    ):
        with pytest.raises(OutboundError) as caught:
            await read_slowly(answer)
    assert caught.value.reason == OutboundReason.TOO_SLOW


async def test_500_drips_hold_up_nobody_else(authority: Authority, server: Origin) -> None:
    server.handlers["/"] = answering(b"quick")
    drip = repeating(OK + b"\r\n", b"x", 0.1)
    async with speaking(authority, drip) as slow, door(authority, max_connections=50) as outbound:
        waiting = [asyncio.create_task(refusal_to(outbound, slow, timeouts=BRIEF)) for _ in range(500)]
        await asyncio.sleep(0.1)
        patient = replace(PATIENCE, headers_ms=60_000, total_ms=60_000)

        assert await text_of(outbound, server.url("/"), timeouts=patient) == b"quick"
        assert set(await asyncio.gather(*waiting)) == {OutboundReason.TOO_SLOW}


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that answers nobody any more: its queue of connections is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for client in clients:
            client.close()


async def test_nobody_there_is_unreachable_not_slow(outbound: Outbound, full_port: int) -> None:
    assert await refusal_to(outbound, Origin(port=free_port())) == OutboundReason.UNREACHABLE
    assert await refusal_to(outbound, Origin(port=full_port), timeouts=SHORT) == OutboundReason.UNREACHABLE


async def test_slow_lookups_end_and_hold_up_nobody(authority: Authority, server: Origin) -> None:
    class Slow(Names):
        async def __call__(self, host: str) -> Sequence[str]:
            return await (asyncio.Event().wait() if host == "slow.example" else super().__call__(host))  # type: ignore[return-value]

    server.handlers["/"] = answering(b"quick")
    async with door(authority, Slow(**LOCAL), resolve_timeout_ms=300) as outbound:
        slow = asyncio.create_task(refusal_of(outbound, "https://slow.example/"))
        assert await text_of(outbound, server.url("/", "a.example")) == b"quick"

        assert await slow == OutboundReason.TOO_SLOW


async def test_a_name_that_many_ask_for_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def found(host: str) -> list[str]:
        asked.append(host)
        if host == "bad.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return ["192.0.2.1"]

    monkeypatch.setattr("mediarepo.outbound.ssrf_guard._getaddrinfo", found)
    lookup = SystemLookup()

    assert await asyncio.gather(*[lookup("a.example") for _ in range(100)]) == [["192.0.2.1"]] * 100
    assert asked == ["a.example"]
    with pytest.raises(OSError, match="no such name"):
        await lookup("bad.example")
    lookup.close()


def counted(piece: bytes, sent: list[int], *, declared: int | None = None) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = declared
        await response.prepare(request)
        while sum(sent) < 2_000_000_000:
            await response.write(piece)
            sent.append(len(piece))
        return response

    return handler


@pytest.mark.parametrize("declared", [None, 2_000_000_000])
async def test_two_gigabytes_of_json_are_not_read(outbound: Outbound, server: Origin, declared: int | None) -> None:
    sent: list[int] = []
    server.handlers["/"] = redirecting("/huge")
    server.handlers["/huge"] = counted(b"[" * 1_000_000, sent, declared=declared)

    async with outbound.get(server.url("/"), headers={}, timeouts=PATIENCE) as answer:
        with pytest.raises(OutboundError) as caught:
            await answer.read_json(65_536)

    assert caught.value.reason == OutboundReason.TOO_LARGE
    assert sum(sent) < 50_000_000


async def test_a_declared_length_is_enough_to_refuse(authority: Authority, outbound: Outbound) -> None:
    async with (
        speaking(authority, repeating(OK + b"Content-Length: 2000000000\r\n\r\n", b"", 60)) as server,
        outbound.ask(server.target(), "/", headers={}, timeouts=SHORT) as answer,
    ):
        with pytest.raises(OutboundError) as caught:
            await answer.read_json(65_536)
    assert caught.value.reason == OutboundReason.TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"\xff",
        b'{"a":1',
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"a":' + b"9" * 50_000 + b"}",
    ],
)
async def test_what_is_no_plain_json_object_is_refused(outbound: Outbound, server: Origin, body: bytes) -> None:
    server.handlers["/"] = answering(body)

    async with outbound.get(server.url("/"), headers={}, timeouts=PATIENCE) as answer:
        with pytest.raises(OutboundError) as caught:
            await answer.read_json(65_536)
    assert caught.value.reason == OutboundReason.NOT_JSON


async def test_json_objects_are_read_whatever_their_type_is_called(outbound: Outbound, server: Origin) -> None:
    server.handlers["/"] = answering(json.dumps({"a": [{"b": "\u2603"}]}), headers={"Content-Type": "image/png"})

    async with outbound.get(server.url("/"), headers={}, timeouts=PATIENCE) as answer:
        assert await answer.read_json(100) == {"a": [{"b": "\u2603"}]}


async def test_names_that_nobody_answers_for_leave_threads_for_other_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, blocked = threading.Event(), threading.Semaphore(0)

    def look_up(host: str) -> list[str]:
        if host.endswith("silent.example"):
            blocked.release()
            ended.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr("mediarepo.outbound.ssrf_guard._getaddrinfo", look_up)
    lookup = SystemLookup()
    hanging = [asyncio.create_task(lookup(f"n{number}.silent.example")) for number in range(300)]
    try:
        for _ in range(16):
            await asyncio.to_thread(blocked.acquire)

        assert await lookup("good.example") == ["127.0.0.1"]
        assert not any(task.done() for task in hanging)
    finally:
        ended.set()
    assert await asyncio.gather(*hanging) == [["127.0.0.1"]] * 300
    lookup.close()
