import asyncio
import gzip
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
from tests.pictures.vectors import GOOD
from tests.support.homeserver import fake_homeserver
from tests.support.installation import (
    OTHER_SERVER_NAME,
    OTHER_TOKEN,
    SERVER_NAME,
    TOKEN,
    Answer,
    Installation,
    homeserver,
    installed,
    settings_for,
)
from tests.support.website import Website, website

PICTURE = encoded(corners(400, 300), "PNG")
PATHS = ["/_matrix/client/v1/media/preview_url", *(f"/_matrix/media/{v}/preview_url" for v in ("v3", "r0", "v1"))]


@pytest.fixture
async def site() -> AsyncIterator[Website]:
    async with website() as running:
        yield running


@pytest.fixture
def running(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> Any:
    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Installation]:
        document: dict[str, Any] = {
            "homeservers": [
                homeserver(SERVER_NAME, TOKEN, url_previews=True),
                homeserver(OTHER_SERVER_NAME, OTHER_TOKEN, url_previews=True),
            ],
            "outbound": {"allow_networks": ["127.0.0.0/8"]},
            **overrides,
        }
        async with installed(settings_for(postgres, s3, **document)) as own:
            yield own

    return start


async def ask(own: Installation, url: str, *, path: str = PATHS[0], more: str = "", **arguments: Any) -> Answer:
    return await own.get(f"{path}?url={quote(url, safe='')}{more}", **arguments)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["errcode"]


def page(title: str = "A title", image: str | None = None, **og: str) -> str:
    tags = "".join(f'<meta property="og:{name}" content="{value}">' for name, value in og.items())
    if image is not None:
        tags += f'<meta property="og:image" content="{image}">'
    return f"<html><head><title>{title}</title>{tags}</head><body><p>Some text that stands there.</p></body></html>"


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_is_previewed_with_its_image_as_media(running: Any, site: Website, path: str) -> None:
    site.file("/image.png", PICTURE, "application/octet-stream")
    url = site.page("/page", page(image="/image.png", description="What it says"))
    async with running() as own:
        answer = await ask(own, url, path=path)
        media_id = answer.json["og:image"].removeprefix(f"mxc://{SERVER_NAME}/")
        image = await own.get(own.download_path(media_id))
        thumbnail = await own.get(own.thumbnail_path(media_id))

    assert answer.status == 200
    assert answer.json["og:title"] == "A title"
    assert answer.json["og:description"] == "What it says"
    assert answer.json["og:image:type"] == "image/png"
    assert (answer.json["og:image:width"], answer.json["og:image:height"]) == (400, 300)
    assert answer.json["matrix:image:size"] == len(PICTURE)
    assert (image.status, image.body, image.headers["Content-Type"]) == (200, PICTURE, "image/png")
    assert thumbnail.status == 200


async def test_a_drawing_is_a_pages_image_where_svg_is_switched_on(running: Any, site: Website) -> None:
    site.file("/drawing", GOOD["plain"], "image/svg+xml")
    url = site.page("/page", page(image="/drawing"))
    async with running(thumbnails={"workers": 1, "svg": True}) as own:
        on = await ask(own, url)
        media_id = on.json["og:image"].removeprefix(f"mxc://{SERVER_NAME}/")
        thumbnail = await own.get(own.thumbnail_path(media_id))
        image = await own.get(own.download_path(media_id))
    async with running(thumbnails={"workers": 1}) as own:
        off = await ask(own, url)

    assert (on.json["og:image:type"], on.json["og:image:width"]) == ("image/svg+xml", 400)
    assert (thumbnail.status, thumbnail.headers["Content-Type"]) == (200, "image/png")
    assert image.headers["Content-Disposition"].startswith("attachment")
    assert off.status == 200
    assert "og:image" not in off.json


async def test_images_that_cannot_be_had_never_fail_the_preview(running: Any, site: Website) -> None:
    site.file("/text.png", b"no picture at all", "image/png")
    site.file("/huge.png", PICTURE + bytes(200_000), "image/png")
    site.file("/good.png", PICTURE, "image/png")
    images = ["/gone.png", "/text.png", "/huge.png", "http://10.0.0.1/internal.png", "/good.png"]
    tags = "".join(f'<meta property="og:image" content="{one}">' for one in images)
    only_bad = page("Only bad", image="/gone.png")
    url, bad = site.page("/some", f"<title>Some</title>{tags}"), site.page("/bad", only_bad)
    async with running(previews={"max_image_bytes": 100_000}) as own:
        some, without = await ask(own, url), await ask(own, bad)

    assert some.json["og:image"].startswith(f"mxc://{SERVER_NAME}/")
    assert without.status == 200
    assert without.json["og:title"] == "Only bad"
    assert not any(name.startswith(("og:image", "matrix:")) for name in without.json)


async def test_previews_are_off_unless_the_homeserver_has_them_on(running: Any, site: Website) -> None:
    url = site.page("/page", page())
    async with running(homeservers=[homeserver(SERVER_NAME, TOKEN)]) as own:
        answers = [await ask(own, url, path=path) for path in PATHS]

    assert {refusal(answer) for answer in answers} == {(403, "M_FORBIDDEN")}
    assert answers[0].json["error"] == "URL Previews are disabled"
    assert site.asked == []


async def test_guests_and_strangers_get_none(running: Any, site: Website) -> None:
    url = site.page("/page", page())
    async with fake_homeserver() as synapse:
        synapse.register("guest", f"@guest:{SERVER_NAME}", is_guest=True)
        own_one = {"server_name": SERVER_NAME, "client_api_url": synapse.url, "url_previews": True}
        async with running(homeservers=[own_one]) as own:
            guest = await ask(own, url, token="guest")
            stranger = await ask(own, url, token=None)

    assert refusal(guest) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert refusal(stranger) == (401, "M_MISSING_TOKEN")
    assert site.asked == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, "M_MISSING_PARAM")),
        ("?url=", (400, "M_INVALID_PARAM")),
        ("?url=ftp://a.example/", (400, "M_INVALID_PARAM")),
        ("?url=javascript:alert(1)", (400, "M_INVALID_PARAM")),
        ("?url=http://user:secret@a.example/", (400, "M_INVALID_PARAM")),
        ("?url=http://a.example/%26ts=x&ts=soon", (400, "M_INVALID_PARAM")),
        ("?url=http://" + "a" * 5000, (400, "M_INVALID_PARAM")),
    ],
)
async def test_urls_that_are_none_are_refused(running: Any, query: str, expected: tuple[int, str]) -> None:
    async with running() as own:
        assert refusal(await own.get(PATHS[0] + query)) == expected


async def test_whatever_cannot_be_had_is_told_in_the_same_words(running: Any, site: Website) -> None:
    site.file("/broken", b"no gzip", "text/html", headers={"Content-Encoding": "gzip"})
    site.file("/zip", b"x", "text/html", headers={"Content-Encoding": "zstd"})
    site.file("/error", b"x", "text/html", status=500)
    site.redirect("/inside", "http://169.254.169.254/latest/meta-data/")
    site.redirect("/file", "file:///etc/passwd")
    site.redirect("/loop", "/loop")
    urls = [
        *(site.url + path for path in ("/gone", "/broken", "/zip", "/error", "/inside", "/file", "/loop")),
        "http://127.0.0.1:1/closed",
        "http://169.254.169.254/",
        "http://10.0.0.1/",
        "http://[::1]:80/",
        "http://nowhere.invalid/",
    ]
    async with running(outbound={"allow_networks": ["127.0.0.1/32"], "resolve_timeout_ms": 2000}) as own:
        answers = await asyncio.gather(*(ask(own, url) for url in urls))
        kept = {row["url"]: row["failure"] for row in await own.rows("SELECT url, failure FROM preview")}

    assert {(*refusal(answer), answer.json["error"]) for answer in answers} == {
        (502, "M_UNKNOWN", "the page cannot be previewed")
    }
    assert "forbidden_address" in kept["http://169.254.169.254/"]
    assert "forbidden_address" in kept[site.url + "/inside"]


async def test_rules_hold_for_pages_redirects_and_images(running: Any, site: Website) -> None:
    site.file("/private/image.png", PICTURE, "image/png")
    site.page("/private/page", page())
    site.redirect("/away", "/private/page")
    url = site.page("/page", page(image="/private/image.png"))
    rules = {"deny": [{"path": "/private/*"}]}
    async with running(previews={"url_rules": rules}) as own:
        direct = await ask(own, site.url + "/private/page")
        away = await ask(own, site.url + "/away")
        public = await ask(own, url)

    assert refusal(direct) == (403, "M_FORBIDDEN")
    assert refusal(away) == (502, "M_UNKNOWN")
    assert public.status == 200
    assert "og:image" not in public.json
    assert not any(path.startswith("/private") for path, _ in site.asked)


async def test_any_number_of_requests_in_two_processes_make_one_fetch(running: Any, site: Website) -> None:
    site.file("/image.png", PICTURE, "image/png")
    url = site.page("/page", page(image="/image.png"))
    async with running() as own, installed(own.settings, migrate=False) as other:
        answers = await asyncio.gather(*(ask(one, url) for one in (own, other) for _ in range(20)))
        later = await ask(other, url)

    assert {answer.body for answer in [*answers, later]} == {answers[0].body}
    assert (site.times("/page"), site.times("/image.png")) == (1, 1)


async def test_languages_and_homeservers_have_previews_of_their_own(running: Any, site: Website) -> None:
    url = site.page("/page", page())
    async with running() as own:
        for language in ("de", "fr", "de", "x" * 200):
            await ask(own, url, headers={"Accept-Language": language})
        await ask(own, url, token=OTHER_TOKEN, host=OTHER_SERVER_NAME)

    asked = [headers["Accept-Language"] for _, headers in site.asked]
    assert asked == ["de", "fr", "en, *;q=0.5", "en, *;q=0.5"]


async def test_some_hosts_are_asked_by_other_names(running: Any, site: Website) -> None:
    url = site.page("/page", page())
    domains = [{"host": "127.0.0.*", "user_agent": "Known bot", "headers": {"X-Why": "preview"}}]
    async with running(previews={"domains": domains}) as own:
        await ask(own, url)

    headers = site.asked[0][1]
    assert (headers["User-Agent"], headers["X-Why"]) == ("Known bot", "preview")
    assert "Authorization" not in headers
    assert "Cookie" not in headers


async def test_failures_are_remembered_for_a_while(running: Any, site: Website) -> None:
    async with running() as own:
        first = await ask(own, site.url + "/page")
        site.page("/page", page())
        second = await ask(own, site.url + "/page")
        await own.rows("UPDATE preview SET expires_ts = 1")
        third = await ask(own, site.url + "/page")

    assert [first.status, second.status, third.status] == [502, 502, 200]
    assert site.times("/page") == 2


async def test_an_expired_preview_goes_and_its_image_later_with_its_object(running: Any, site: Website) -> None:
    site.file("/image.png", PICTURE, "image/png")
    url = site.page("/page", page(image="/image.png"))
    async with running() as own:
        media_id = (await ask(own, url)).json["og:image"].rpartition("/")[2]
        await own.rows("UPDATE preview SET expires_ts = 1")
        await own.repository.previews.tidy()
        between = (await own.get(own.download_path(media_id))).status
        await own.rows("UPDATE media SET preview_expires_ts = 1")
        await own.repository.previews.tidy()
        await own.repository.sweeps.outbox.drain()
        after = (await own.get(own.download_path(media_id))).status

        assert (between, after) == (200, 404)
        assert await own.object_keys() == set()
        assert await own.value("SELECT count(*) FROM preview") == 0


async def test_the_oldest_images_go_when_the_budget_is_full(running: Any, site: Website) -> None:
    async with running(previews={"budget_bytes": 2 * len(PICTURE) + 100}) as own:
        found = []
        for number in range(4):
            site.file(f"/image{number}.png", PICTURE + bytes([number]), "image/png")
            url = site.page(f"/page{number}", page(image=f"/image{number}.png"))
            found.append((await ask(own, url)).json["og:image"].rpartition("/")[2])
            await own.rows("UPDATE media SET created_ts = $2 WHERE media_id = $1", found[-1], number + 1)
        await own.repository.previews.tidy()
        statuses = [(await own.get(own.download_path(media_id))).status for media_id in found]
        again = await ask(own, site.url + "/page0")

        assert statuses == [404, 404, 200, 200]
        assert (await own.get(own.download_path(again.json["og:image"].rpartition("/")[2]))).status == 200


async def test_links_to_files_are_previewed_by_what_they_are(running: Any, site: Website) -> None:
    image = site.file("/photo.jpg", PICTURE, "image/png")
    disposition = {"Content-Disposition": 'attachment; filename="report 2.pdf"'}
    pdf = site.file("/download?id=5", b"%PDF-1.7", "application/pdf", headers=disposition)
    async with running() as own:
        of_image, of_pdf = await ask(own, image), await ask(own, pdf)

    assert of_image.json["og:image"].startswith("mxc://")
    assert of_image.json["og:title"]
    assert of_pdf.json["og:title"] == "report 2.pdf"


async def test_compressed_pages_are_read_and_bombs_cut_off(running: Any, site: Website) -> None:
    url = site.zipped("/zip", page("Zipped"))
    bomb = gzip.compress(b"<title>Bomb</title>" + bytes(100_000_000))
    site.file("/bomb", bomb, "text/html", headers={"Content-Encoding": "gzip"})
    site.file("/image-bomb", gzip.compress(bytes(50_000_000)), "image/png", headers={"Content-Encoding": "gzip"})
    site.page("/with", page("With", image="/image-bomb"))
    async with running() as own:
        zipped = await ask(own, url)
        cut = await ask(own, site.url + "/bomb")
        with_bomb = await ask(own, site.url + "/with")

    assert zipped.json["og:title"] == "Zipped"
    assert cut.json["og:title"] == "Bomb"
    assert with_bomb.json["og:title"] == "With"


async def test_pages_that_name_oembed_or_send_their_readers_on_are_followed(running: Any, site: Website) -> None:
    site.file(
        "/oembed",
        b'{"type": "video", "title": "From oEmbed", "provider_name": "Tube", "author_name": "Somebody"}',
        "application/json",
    )
    link = '<link rel="alternate" type="application/json+oembed" href="/oembed">'
    video = site.page("/video", f"<html><head>{link}</head></html>")
    site.page("/target", page("Where it leads"))
    refresh = site.page("/refresh", '<html><head><meta http-equiv="refresh" content="0; url=/target"></head></html>')
    async with running() as own:
        of_video, of_refresh = await ask(own, video), await ask(own, refresh)

    assert (of_video.json["og:title"], of_video.json["og:site_name"]) == ("From oEmbed", "Tube")
    assert of_refresh.json["og:title"] == "Where it leads"


async def test_a_page_that_is_slow_is_given_up_and_does_not_hold_up_others(running: Any, site: Website) -> None:
    async with website() as slow, running(previews={"timeout_ms": 10_000}) as own:
        slow.hold = asyncio.Event()
        waiting = asyncio.create_task(ask(own, slow.page("/page", page())))
        while not slow.asked:
            await asyncio.sleep(0.01)
        quick = await ask(own, site.page("/page", page()))
        given_up = await waiting
        slow.hold.set()

    assert quick.status == 200
    assert refusal(given_up) == (502, "M_UNKNOWN")


async def test_hostile_pages_do_not_keep_others_from_being_served(running: Any, site: Website) -> None:
    hostile = {
        "/nested": "<div>" * 400_000,
        "/attributes": f"<p {'a=1 ' * 300_000}>",
        "/huge": f'<meta property="og:title" content="{"x" * 1_900_000}">',
        "/entities": "&amp;" * 400_000,
        "/json": '<script type="application/ld+json">' + "[" * 500_000 + "</script>",
    }
    for path, html in hostile.items():
        site.page(path, html)
    picture = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(picture, "PNG")
    site.file("/bomb.png", picture.getvalue(), "image/png")
    site.page("/bomb", page("Bomb", image="/bomb.png"))
    async with running() as own:
        media_id = await own.upload(PICTURE)
        previews = [asyncio.create_task(ask(own, site.url + path)) for path in [*hostile, "/bomb"]]
        pings = []
        while not all(task.done() for task in previews):
            pings.append((await own.get(own.download_path(media_id))).status)
        answers = [task.result() for task in previews]

    assert set(pings) == {200}
    assert len(pings) > 5
    assert {answer.status for answer in answers} <= {200, 502}
    for answer in answers:
        assert len(answer.body) < 20_000
    assert "og:image" not in answers[-1].json


async def test_a_reader_that_dies_is_replaced(running: Any, site: Website) -> None:
    one, two = site.page("/one", page("One")), site.page("/two", page("Two"))
    async with running() as own:
        first = await ask(own, one)
        for pid in own.repository.previews.making.reading.pids:
            os.kill(pid, signal.SIGKILL)
        second, third = await ask(own, two), await ask(own, site.page("/three", page("Three")))

    assert first.status == 200
    assert {second.status, third.status} <= {200, 502}
    assert third.status == 200
