"""An installation with the console: two homeservers, admins, pictures, hostile names, and a history of usage."""

import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from PIL import Image, ImageDraw
from playwright.async_api import Page, expect

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.tenants import OPERATOR, A, Tenants, admin_of, two_tenants

PASSWORD = "correct horse battery staple"
POLICIES = [
    {"name": "old-remote", "what": "remote", "max_idle_ms": 7_776_000_000},
    {"name": "huge-uploads", "what": "local", "max_age_ms": 31_536_000_000, "keep_avatars": False},
]


@dataclass
class ConsoleSite:
    """The running console."""

    tenants: Tenants
    url: str

    async def open(self, page: Page, path: str = "", *, token: str = OPERATOR) -> None:
        """Sign in with a token, and go to a page of the console."""
        await page.goto("/_mediarepo/console/")
        await page.evaluate("sessionStorage.clear()")
        await page.goto("/_mediarepo/console/")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Sign in with the token").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        await go(page, path)


async def go(page: Page, path: str) -> None:
    """Follow an address within the console."""
    if path:
        await page.evaluate("hash => { location.hash = hash }", f"#/{path}")
        place = f"#/{path.partition('?')[0].partition('/')[0]}"
        await expect(page.locator("nav a[aria-current]")).to_have_attribute("href", place)
    await expect(page.get_by_text("Loading …")).to_have_count(0)


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """Draw an abstract landscape, so that the screenshots show something."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, tuple(chance.randrange(150, 240) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for layer in range(4):
        height = size[1] * (0.35 + layer * 0.17)
        colour = tuple(chance.randrange(40, 200) - layer * 8 for _ in range(3))
        points = [(x, height + chance.randrange(-24, 24)) for x in range(0, size[0] + 40, 40)]
        draw.polygon([(0, size[1]), *points, (size[0], size[1])], fill=colour)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


async def add(
    site: ConsoleSite, data: bytes, *, name: str, content_type: str = "image/jpeg", user: str = "alice"
) -> str:
    """Upload as a user; gives the mxc."""
    token = f"token-of-{user}"
    site.tenants.homeserver.register(token, f"@{user}:{A}")
    answer = await site.tenants.own.request(
        "POST",
        "/_matrix/media/v3/upload",
        token=token,
        host=A,
        data=data,
        headers={"Content-Type": content_type},
        params={"filename": name},
    )
    assert answer.status == 200, answer
    return str(answer.json["content_uri"])


@asynccontextmanager
async def console_site(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[ConsoleSite]:
    """Run it, for as long as the block."""
    async with two_tenants(
        postgres,
        s3,
        console={"enabled": True, "monthly_price_per_gib": 0.02},
        retention={"policies": POLICIES},
        thumbnails={"workers": 1, "video": True, "svg": True},
        admin={"token": OPERATOR, "trash_ms": 3_600_000},
    ) as tenants:
        urls = tenants.own.settings.console.homeserver_urls
        urls[A] = tenants.homeserver.url
        tenants.homeserver.passwords["admin"] = (PASSWORD, admin_of(A))
        tenants.homeserver.passwords["user"] = (PASSWORD, f"users-token-{A}")
        port = tenants.own.url.rpartition(":")[2]
        site = ConsoleSite(tenants, f"http://{A}:{port}")
        await _fill(site)
        yield site


async def _fill(site: ConsoleSite) -> None:
    for number, user in enumerate(["alice", "alice", "bob", "carol", "bob", "dave"]):
        await add(site, picture(number), name=f"holiday {number + 1}.jpg", user=user)
    await add(site, picture(2), name="again the same.jpg", user="carol")
    await add(site, bytes(70_000), name="", content_type="application/octet-stream", user="dave")
    own = site.tenants.own
    await own.repository.administration.usage.fold()
    await own.rows(
        """INSERT INTO media_usage_day SELECT current_date - d, c.name, c.server, 1000 - d * 5,
               (c.most - d * c.step)::bigint
           FROM generate_series(1, 60) d,
               (VALUES ('local', $1::text, 9e9, 6e7), ('remote', '', 5e9, 4e7)) c (name, server, most, step)""",
        A,
    )
    await own.rows(
        """INSERT INTO object_usage_day SELECT current_date - d, 'main', c.name, 1000 - d * 5,
               (c.most - d * c.step)::bigint
           FROM generate_series(0, 60) d,
               (VALUES ('content', 12e9, 9e7), ('thumbnails', 8e8, 5e6)) c (name, most, step)"""
    )
