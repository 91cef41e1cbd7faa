import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mediarepo.config.federation import OutboundConfig
from mediarepo.outbound.errors import OutboundError, OutboundReason
from mediarepo.outbound.urls import WebUrl
from mediarepo.outbound.web_client import PreviewCookies, WebClient
from tests.support.origin import PATIENCE, Authority
from tests.support.raw_site import RawSite, answer, raw_site

OK = ["Content-Length: 4"]
FOUND = b"HTTP/1.1 302 Found"
SHORT = replace(PATIENCE, headers_ms=300, idle_ms=300, total_ms=900)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def site() -> AsyncIterator[RawSite]:
    async with raw_site() as running:
        yield running


class Policy:
    """Lets everything through, and notes it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def headers(self, url: WebUrl) -> Mapping[str, str]:
        self.seen.append(url.text)
        return {"Accept": "*/*"}


async def local(host: str) -> Sequence[str]:
    """Resolve the names of the tests."""
    if host == "inside.example":
        return ["10.0.0.1"]
    if not host.endswith(".example"):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return ["127.0.0.1"]


@asynccontextmanager
async def client(authority: Authority, **config: Any) -> AsyncIterator[WebClient]:
    settings = {"allow_networks": ["127.0.0.0/8"], "ca_file": str(authority.ca_file), **config}
    async with WebClient(OutboundConfig(**settings), lookup=local) as opened:
        yield opened


async def body_of(options: WebClient, url: str, **arguments: Any) -> bytes:
    how: dict[str, Any] = {"timeouts": PATIENCE, "policy": Policy(), "cookies": PreviewCookies(), **arguments}
    async with options.get(url, **how) as found:
        text = bytearray()
        while piece := await found.read():
            text += piece
        return bytes(text)


async def refusal(authority: Authority, url: str, **arguments: Any) -> OutboundReason:
    async with client(authority) as options:
        with pytest.raises(OutboundError) as caught:
            await body_of(options, url, **arguments)
    return caught.value.reason


async def test_https_works_like_http_and_checks_who_answers(authority: Authority) -> None:
    async with raw_site(authority.context("a.example", "foo-.a.example"), host="a.example") as own:
        own.answers["/"] = [answer(*OK, body=b"page")]
        async with client(authority) as options:
            assert await body_of(options, own.url) == b"page"
            assert await body_of(options, own.url.replace("a.example", "foo-.a.example")) == b"page"
        wrong = await refusal(authority, own.url.replace("a.example", "b.example"))
        unchecked = await refusal(authority, own.url.replace("a.example", "127.0.0.1"))

    assert wrong == unchecked == OutboundReason.TLS_FAILED
    assert len(own.asked) == 2


async def test_a_head_that_breaks_off_counts_only_where_no_tls_says_otherwise(
    authority: Authority, site: RawSite
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Type: text/html"
    site.answers["/"] = [cut]
    async with client(authority) as options:
        assert await body_of(options, site.url) == b""
    async with raw_site(authority.context("a.example"), host="a.example") as own:
        own.answers["/"] = [cut]
        assert await refusal(authority, own.url) == OutboundReason.NOT_HTTP


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (answer("Content-Length: 400", body=b"page"), b"page"),
        (answer("Content-Length: 4", body=b"pages and more"), b"page"),
        (answer(body=b"page"), b"page"),
        (answer(body=b"page", first=b"HTTP/1.0 200 OK"), b"page"),
        (b"HTTP/1.1 200\nContent-Length: 4\n\npage", b"page"),
        (answer(body=answer(*OK, body=b"page"), first=b"HTTP/1.1 100 Continue"), b"page"),
        (answer("Link: </a>", body=answer(*OK, body=b"page"), first=b"HTTP/1.1 103 Early"), b"page"),
        (answer("Content-Length: 4", body=b"page", first=b"HTTP/1.1 204 None"), b""),
        (answer("X: " + "a" * 34_000, *OK, body=b"page"), b"page"),
        (answer(*(f"X-{at}: {'a' * 1000}" for at in range(200)), *OK, body=b"page"), b"page"),
        (answer("Transfer-Encoding: chunked", body=b"4\r\npage\r\n"), b"page"),
        (answer("Transfer-Encoding: chunked", body=b"4;x=y\npage\n0\n\n"), b"page"),
        (answer("Location:", *OK, body=b"page", first=FOUND), b"page"),
        (answer(*OK, body=b"page", first=FOUND), b"page"),
    ],
)
async def test_answers_are_read_as_browsers_read_them(
    authority: Authority, site: RawSite, sent: bytes, expected: bytes
) -> None:
    site.answers["/"] = [sent]
    async with client(authority) as options:
        assert await body_of(options, site.url) == expected


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", OutboundReason.UNREACHABLE),
        (b"<html>a page without a head</html>", OutboundReason.NOT_HTTP),
        (b"SSH-2.0-OpenSSH\r\n", OutboundReason.NOT_HTTP),
        (answer("X: " + "a" * 300_000, *OK, body=b"page"), OutboundReason.NOT_HTTP),
        (answer(*("a:" for _ in range(3_000)), *OK, body=b"page"), OutboundReason.NOT_HTTP),
        (answer(first=b"HTTP/1.1 100 Continue") * 20_000, OutboundReason.NOT_HTTP),
        (answer(first=b"HTTP/1.1 101 Switching"), OutboundReason.NOT_HTTP),
        (answer("Content-Length: 4", "Content-Length: 5", body=b"page"), OutboundReason.NOT_HTTP),
        (answer("Location: /a", "Location: /b", first=FOUND), OutboundReason.NOT_HTTP),
        (answer("Location: http://10.0.0.1/", first=FOUND), OutboundReason.FORBIDDEN_ADDRESS),
        (answer("Location: http://0x0a.1/", first=FOUND), OutboundReason.FORBIDDEN_ADDRESS),
        (answer("Location: http://[::ffff:10.0.0.1]/", first=FOUND), OutboundReason.FORBIDDEN_ADDRESS),
        (answer("Location: http://inside.example/", first=FOUND), OutboundReason.FORBIDDEN_ADDRESS),
        (answer("Location: file:///etc/passwd", first=FOUND), OutboundReason.BAD_URL),
        (answer("Location: http://u:p@a.example/", first=FOUND), OutboundReason.BAD_URL),
        (answer("Location: /", first=FOUND), OutboundReason.TOO_MANY_REDIRECTS),
    ],
)
async def test_what_no_browser_would_show_or_nobody_may_ask_is_refused(
    authority: Authority, site: RawSite, sent: bytes, reason: OutboundReason
) -> None:
    site.answers["/"] = [sent]

    assert await refusal(authority, site.url) == reason


async def test_twenty_redirects_are_followed_and_no_more(authority: Authority, site: RawSite) -> None:
    site.answers["/0"] = [answer(*OK, body=b"page")]
    for at in range(1, 22):
        site.answers[f"/{at}"] = [answer(f"Location: {at - 1}", first=FOUND)]
    async with client(authority) as options:
        assert await body_of(options, f"{site.url}/20") == b"page"

    assert await refusal(authority, f"{site.url}/21") == OutboundReason.TOO_MANY_REDIRECTS


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nX: ", answer("Content-Length: 40", body=b"page")])
async def test_who_holds_an_answer_back_is_left(authority: Authority, site: RawSite, sent: bytes) -> None:
    site.answers["/"], site.holds = [sent], True

    assert await refusal(authority, site.url, timeouts=SHORT) == OutboundReason.TOO_SLOW


async def test_every_url_on_the_way_is_judged(authority: Authority, site: RawSite) -> None:
    site.answers["/a"] = [answer("Location: //127.1:" + site.url.rpartition(":")[2] + "/b c", first=FOUND)]
    site.answers["/b%20c"] = [answer(*OK, body=b"page")]
    policy = Policy()
    async with client(authority) as options:
        assert await body_of(options, f"{site.url}/a", policy=policy) == b"page"

    assert policy.seen == [f"{site.url}/a", f"{site.url}/b%20c"]


async def test_cookies_go_to_the_host_that_set_them_and_nowhere_else(authority: Authority, site: RawSite) -> None:
    other = site.url.replace("127.0.0.1", "b.example")
    site.answers["/"] = [
        answer("Set-Cookie: a=1; Path=/; Domain=example", f"Location: {other}/b", first=FOUND),
        answer("Set-Cookie: b=2; Secure", "Set-Cookie: c=3", "Location: /c", first=FOUND),
    ]
    site.answers["/b"] = [answer(f"Location: {site.url}/", first=FOUND)]
    site.answers["/c"] = [answer(*OK, body=b"page")]
    async with client(authority) as options:
        assert await body_of(options, site.url) == b"page"
        assert await body_of(options, f"{site.url}/c") == b"page"

    cookies = [[line for line in head.split(b"\r\n") if line.startswith(b"Cookie:")] for head in site.asked]
    assert cookies == [[], [], [], [b"Cookie: c=3"], []]
    assert site.targets == ["/", "/b", "/", "/c", "/c"]


async def test_a_header_with_a_line_end_is_never_sent(authority: Authority, site: RawSite) -> None:
    class Split(Policy):
        def headers(self, url: WebUrl) -> Mapping[str, str]:
            return {**super().headers(url), "X": "a\r\nHost: b"}

    assert await refusal(authority, site.url, policy=Split()) == OutboundReason.BAD_URL
    assert site.asked == []
