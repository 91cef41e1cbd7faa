"""Previews and a real Chromium, given the very same bytes of web servers: the same title, or a reason why not."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.previews.web_server_answers import cases
from tests.support.chromium import Chromium, chromium
from tests.support.installation import SERVER_NAME, TOKEN, Installation, homeserver, installed, settings_for
from tests.support.raw_site import RawSite, raw_site

pytestmark = pytest.mark.heavy

TITLE = """(() => {
  if (location.protocol === 'chrome-error:') return '(error)';
  if (document.readyState !== 'complete') return null;
  const og = document.querySelector('meta[property="og:title"]');
  return (og && og.content) || document.title || null;
})()"""
_CUT = "a headless Chromium gives up a page that breaks off; its text came, so it is previewed"
_KNOWN = "the encodings that are known and in use are undone; Chromium shows what is left of the others, or nothing"
_TWENTY = "Fetch follows 20 redirects, Chromium 19"
_SPELLING = "rules need one spelling of each address; servers take both for the same"
_UTF_8 = "text that is UTF-8 is read as UTF-8 where nobody says so; Chromium takes windows-1252"
DIFFERENT: dict[str, str] = {
    "20 redirects": _TWENTY,
    "chunks b'<p>x</html>\\r\\n0\\r\\n' b'34\\r\\n<h'": _CUT,
    "chunks b'ad><p>x</html>\\r\\n' b'34\\r\\n<h'": _CUT,
    "chunks b'html>\\r\\nFFFF\\r\\ncut' b'34\\r\\n<h'": _CUT,
    "chunks b'p>x</html>\\r\\n-5\\r\\n' b'34\\r\\n<h'": _CUT,
    "chunks b'tml>\\r\\nnonsense\\r\\n' b'34\\r\\n<h'": _CUT,
    "encoding gzip, gzip 15": _KNOWN,
    "encoding unknown, gzip 17": _KNOWN,
    "length ['Content-Length: 605']": _CUT,
    "location b'/%7euser'": _SPELLING,
    "location b'/100%'": _SPELLING,
    "two encodings": _KNOWN,
    "types ['']": _UTF_8,
    "types ['*/*']": _UTF_8,
    "types ['TEXT/HTML']": _UTF_8,
    "types ['nonsense']": _UTF_8,
    "types ['text/html']": _UTF_8,
    "types []": _UTF_8,
}
"""Cases in which previews differ, with the reason."""


@pytest.fixture(scope="module")
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    settings = settings_for(
        postgres,
        s3,
        homeservers=[homeserver(SERVER_NAME, TOKEN, url_previews=True)],
        outbound={"allow_networks": ["127.0.0.0/8"]},
    )
    async with installed(settings) as one:
        yield one


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


class InOrder(dict[str, list[bytes]]):
    """Gives the same list of answers, whatever is asked for."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def get(self, key: str, _default: object = None) -> list[bytes]:
        return [b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"] if key == "/favicon.ico" else self._answers


def prepared(site: RawSite, answers: list[bytes]) -> None:
    host = site.url.removeprefix("http://").encode()
    site.answers = InOrder([one.replace(b"HOST", host) for one in answers])
    site.asked.clear()


@pytest.mark.parametrize("name", cases())
async def test_previews_and_chromium_see_the_same(own: Installation, browser: Chromium, name: str) -> None:
    async with raw_site() as site:
        prepared(site, cases()[name])
        shown = await browser.value(f"{site.url}/start", TITLE, timeout_s=5)
        browsed = [target for target in site.targets if target != "/favicon.ico"]
        prepared(site, cases()[name])
        url = quote(f"{site.url}/start", safe="")
        answer = await own.get(f"/_matrix/client/v1/media/preview_url?url={url}")
        asked = [target for target in site.targets if target != "/favicon.ico"]

    shown = shown or "(error)"
    seen = answer.json["og:title"] if answer.status == 200 else "(error)"
    same = seen == shown and (asked == browsed or shown == "(error)")
    assert same is (name not in DIFFERENT), (seen, shown, asked, browsed)


def test_there_are_a_hundred_cases_and_every_difference_is_one_of_them() -> None:
    assert len(cases()) >= 100
    assert set(DIFFERENT) <= set(cases())
