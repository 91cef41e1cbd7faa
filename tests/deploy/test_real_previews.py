"""Page by page: what a real Synapse and mediarepo say of the same pages on loopback."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.synapse import SERVER_NAME, running_synapse
from tests.pictures.drawn import corners, encoded
from tests.previews.corpus import PAGES, load
from tests.support.installation import Installation, installed, settings_for
from tests.support.website import Given, Website, website

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

PICTURE = encoded(corners(400, 300), "PNG")
COMPARED = ("og:title", "og:description", "og:image", "og:site_name", "og:type", "og:url")
LEFT_OUT = {
    ("forum_thread", "og:image"): "an arrow of 11 x 9 pixels, or a user's face",
    ("table_layout", "og:image"): "a transparent spacer",
    ("frameset", "og:description"): "that the browser has no frames",
    ("video_consent_wall", "og:description"): "that the site wants to store cookies",
    ("spoofed_direction", "og:site_name"): "characters that nobody sees",
    ("tags_in_body", "og:site_name"): "a tag inside a template, which is no part of the page",
}
"""What Synapse gives and we do not, on purpose: it would tell readers nothing of the page."""
WITH_PREVIEWS = {
    "enable_media_repo": True,
    "url_preview_enabled": True,
    "url_preview_ip_range_blacklist": ["192.0.2.0/24"],
    "max_spider_size": "10M",
}


class EveryPicture(dict[str, Given]):
    """A website's files, where every other path is a picture."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key) or default or Given(PICTURE, "image/png")


@dataclass(frozen=True)
class World:
    """Both servers, and the website that they look at."""

    synapse_url: str
    synapse_token: str
    own: Installation
    site: Website

    async def synapses(self, url: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.synapse_token}"}
        path = f"/_matrix/client/v1/media/preview_url?url={quote(url, safe='')}"
        async with aiohttp.ClientSession(self.synapse_url, headers=headers) as session, session.get(path) as answer:
            body: dict[str, Any] = await answer.json()
            return body if answer.status == 200 else {}

    async def ours(self, url: str) -> dict[str, Any]:
        answer = await self.own.get(f"/_matrix/client/v1/media/preview_url?url={quote(url, safe='')}")
        return dict(answer.json) if answer.status == 200 else {}


@pytest.fixture(scope="module")
async def world(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    s3: EmbeddedS3,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    assert request.config.cache is not None
    folder = tmp_path_factory.mktemp("previews")
    changes = {**WITH_PREVIEWS, "media_store_path": str(folder / "media_store")}
    cache = request.config.cache.mkdir("synapse")
    async with AsyncExitStack() as stack:
        synapse = await stack.enter_async_context(running_synapse(cache, folder, changes=changes))
        site = await stack.enter_async_context(website())
        site.pages = EveryPicture()
        homeserver = {"server_name": SERVER_NAME, "client_api_url": synapse.url, "url_previews": True}
        overrides = {"outbound": {"allow_networks": ["127.0.0.0/8"]}, "rate_limits": {"users": []}}
        settings = settings_for(postgres, s3, homeservers=[homeserver], **overrides)
        own = await stack.enter_async_context(installed(settings))
        own.server_name = SERVER_NAME
        own.token = await synapse.register("alice")
        yield World(synapse.url, own.token, own, site)


def put(site: Website, path: Path) -> str:
    """Put a page of the corpus on the website, as if that were its own site."""
    sent = load(path)
    parts = urlsplit(sent.url)
    body = sent.body.replace(f"{parts.scheme}://{parts.netloc}".encode(), site.url.encode())
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    target = target if target != "/" else f"/{path.stem}"
    return site.file(target, body, sent.content_type)


async def test_for_every_page_we_say_at_least_as_much_as_synapse(world: World) -> None:
    less, more = [], 0
    for path in PAGES:
        url = put(world.site, path)
        synapses, ours = await world.synapses(url), await world.ours(url)
        missing = [name for name in COMPARED if synapses.get(name) and not ours.get(name)]
        missing = [name for name in missing if (path.stem, name) not in LEFT_OUT]
        if missing:
            less.append((path.stem, {name: synapses[name] for name in missing}, ours))
        more += sum(1 for name in COMPARED if ours.get(name) and not synapses.get(name))

    print(f"{len(PAGES)} pages; {more} fields that Synapse does not give")
    assert less == []
    assert more > 0
