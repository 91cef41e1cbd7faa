"""Answers of web servers as they are, previewed: what every browser shows is shown."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.support.installation import (
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    homeserver,
    installed,
    settings_for,
)
from tests.support.raw_site import RawSite, answer, raw_site

ANSWERS = Path(__file__).parents[1] / "fixtures" / "web_answers"
PICTURE = encoded(corners(400, 300), "PNG")
FOUND = b"HTTP/1.1 302 Found"
HTML = "Content-Type: text/html"


@pytest.fixture(scope="module")
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    settings = settings_for(
        postgres,
        s3,
        homeservers=[homeserver(SERVER_NAME, TOKEN, url_previews=True)],
        outbound={"allow_networks": ["127.0.0.0/8"]},
        previews={"url_rules": {"deny": [{"host": "127.0.0.2"}, {"host": "[::ffff:127.0.0.3]"}, {"host": "0x7f.4"}]}},
    )
    async with installed(settings) as one:
        yield one


@pytest.fixture
async def site() -> AsyncIterator[RawSite]:
    async with raw_site() as running:
        running.answers = {f"/{path.stem}": [path.read_bytes()] for path in ANSWERS.glob("*.http")}
        running.answers["/target"] = running.answers["/_target"]
        yield running


async def ask(own: Installation, url: str) -> Answer:
    return await own.get(f"/_matrix/client/v1/media/preview_url?url={quote(url, safe='')}")


def page(title: str, more: str = "") -> bytes:
    return f'<html><head><meta property="og:title" content="{title}">{more}</head><body></body></html>'.encode()


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("hop6", "hop end"),
        ("csp20k", "csp20k"),
        ("ce-utf8", "ce utf8"),
        ("ce-awschunked", "ce aws"),
        ("cl-long", "cl long"),
        ("cl-short", "cl short"),
        ("chunk-cut", "chunk cut"),
        ("dup-cl", "dup cl"),
        ("te-cl", "te cl"),
        ("hdr-nocolon", "hdr nocolon"),
        ("refresh-header", "Target page"),
        ("refresh-chain", "Target page"),
        ("ct-list", "ct list"),
        ("ld3", "LD headline"),
    ],
)
async def test_what_every_browser_shows_is_previewed(own: Installation, site: RawSite, name: str, title: str) -> None:
    found = await ask(own, f"{site.url}/{name}")

    assert (found.status, found.json["og:title"]) == (200, title)


@pytest.mark.parametrize(
    ("name", "second", "title"),
    [
        ("loc-utf8", "/seite-gr%C3%B6%C3%9Fe-%D0%B6", "Target page"),
        ("loc-space", "/with%20space%20here?q=a%20b", "Target page"),
        ("loc-quot", "/t%22arget%7Cx%7By%7D%5E", "Target page"),
    ],
)
async def test_a_location_is_followed_as_browsers_spell_it(
    own: Installation, site: RawSite, name: str, second: str, title: str
) -> None:
    site.answers[second] = site.answers["/_target"]

    found = await ask(own, f"{site.url}/{name}")

    assert site.targets == [f"/{name}", second]
    assert (found.status, found.json["og:title"]) == (200, title)
    assert found.json["og:url"] == site.url + second


async def test_a_cookie_of_a_redirect_goes_along_within_one_preview(own: Installation, site: RawSite) -> None:
    site.answers["/cookie-loop"] += site.answers["/cookie-loop.second"]

    found = await ask(own, f"{site.url}/cookie-loop")

    assert found.json["og:title"] == "Cookie ok"
    assert [b"\r\nCookie: gdpr=1\r\n" in head for head in site.asked] == [False, True]


async def test_cookies_of_one_preview_are_unknown_to_the_next(own: Installation, site: RawSite) -> None:
    site.answers["/one"] = [answer("Set-Cookie: a=1; Path=/", HTML, body=page("One"))]
    site.answers["/two"] = [answer(HTML, body=page("Two"))]

    await ask(own, f"{site.url}/one")
    await ask(own, f"{site.url}/two")

    assert site.targets == ["/one", "/two"]
    assert not any(b"\r\nCookie:" in head for head in site.asked)


async def test_a_page_that_sends_on_to_itself_once_a_cookie_is_set_is_asked_again(
    own: Installation, site: RawSite
) -> None:
    consent = b'<html><head><meta http-equiv="Refresh" content="0; URL=\'/self\'"></head></html>'
    site.answers["/self"] = [answer("Set-Cookie: a=1", HTML, body=consent), answer(HTML, body=page("Behind"))]

    assert (await ask(own, f"{site.url}/self")).json["og:title"] == "Behind"


async def test_pages_that_send_on_for_ever_are_left(own: Installation, site: RawSite) -> None:
    for at in range(50):
        to = f'<title>Page {at}</title><meta http-equiv="refresh" content="0 url=/on{at + 1}">'
        site.answers[f"/on{at}"] = [answer(HTML, body=f"<html><head>{to}</head></html>".encode())]

    found = await ask(own, f"{site.url}/on0")

    assert found.json["og:title"] == "Page 5"
    assert len(site.asked) == 6


async def test_images_are_read_as_pages_are_and_measured_themselves(own: Installation, site: RawSite) -> None:
    lies = '<meta property="og:image" content="/a b.png"><meta property="og:image:width" content="1">'
    site.answers["/page"] = [answer(HTML, body=page("A", lies + '<meta property="og:image:height" content="9999">'))]
    site.answers["/a%20b.png"] = [answer("Location: /gr\u00f6\u00dfe.png", "garbage", first=FOUND)]
    site.answers["/gr%C3%B6%C3%9Fe.png"] = [
        answer("Content-Length: 99999", "Content-Encoding: none", "Content-Type: x", body=PICTURE)
    ]

    found = await ask(own, f"{site.url}/page")

    assert found.json["og:image"].startswith(f"mxc://{SERVER_NAME}/")
    assert (found.json["og:image:width"], found.json["og:image:height"]) == (400, 300)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "127\u30020\u30020\u30022",
        "127.0.0.2.",
        "127.2",
        "0x7f.0.0.2",
        "0177.0.0.2",
        "2130706434",
        "%31%32%37.0.0.2",
        "\uff11\uff12\uff17.0.0.2",
        "127.0.0.3",
        "127.0.0.4",
    ],
)
async def test_a_rule_holds_for_a_host_however_it_is_spelt(own: Installation, site: RawSite, host: str) -> None:
    site.answers["/to"] = [answer(f"Location: http://{host}:1/", first=FOUND)]

    refused, redirected = await ask(own, f"http://{host}/"), await ask(own, f"{site.url}/to")

    assert (refused.status, refused.json["errcode"]) == (403, "M_FORBIDDEN")
    assert redirected.status == 502


@pytest.mark.parametrize("url", ["https://foo-.tumblr.invalid/post/1", "https://i\u2764.invalid/"])
async def test_hosts_that_browsers_ask_for_are_asked_for(own: Installation, url: str) -> None:
    assert (await ask(own, url)).status == 502


async def test_the_log_tells_hosts_of_links_and_nothing_more(
    own: Installation, site: RawSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/secret-path?key=SECRET"] = [answer("Location: /also-secret?key=SECRET", first=FOUND)]
    image = '<meta property="og:image" content="/secret-image?key=SECRET">'
    site.answers["/page?key=SECRET"] = [answer(HTML, body=page("A", image))]

    await ask(own, f"{site.url}/secret-path?key=SECRET")
    await ask(own, f"{site.url}/page?key=SECRET")

    told: Any = capsys.readouterr()
    assert "preview_failed" in told.out + told.err
    assert "127.0.0.1" in told.out + told.err
    assert "secret" not in (told.out + told.err).lower()
