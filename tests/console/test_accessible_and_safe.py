"""Hostile texts stay texts, and everybody can use the pages: axe-core, phones, dark colours."""

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.conftest import findings, photograph
from tests.console.console_site import ConsoleSite, add, go, picture
from tests.support.tenants import A

PAGES = ["overview", "media", "users", "retention", "tasks", "audit"]
EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>{{7*7}}'


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing_serious(page: Page, site: ConsoleSite, colours: Any, width: int) -> None:
    mxc = await add(site, picture(80), name="seen by all.jpg", user="nora")
    await site.tenants.do("", "quarantine", mxc.removeprefix("mxc://"), "as an example")
    await page.emulate_media(color_scheme=colours)
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto("/_mediarepo/console/")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    wrong = {"sign-in": await findings(page)}
    await site.open(page)
    for name in [*PAGES, f"media/{mxc.removeprefix('mxc://')}", f"media?user_id=@nora:{A}"]:
        await go(page, name)
        wrong[name] = await findings(page)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} px wider than the window"
        if (colours, width, name) == ("dark", 1280, "overview"):
            await photograph(page, "dark")
    await go(page, f"media/{mxc.removeprefix('mxc://')}")
    await page.get_by_role("button", name="Delete").click()
    wrong["dialog"] = await findings(page)

    assert {name: found for name, found in wrong.items() if found} == {}


async def test_hostile_names_types_users_and_servers_stay_text(page: Page, site: ConsoleSite) -> None:
    own = site.tenants.own
    mxc = await add(site, picture(81), name=EVIL, user="oscar")
    media_id = mxc.rpartition("/")[2]
    await site.tenants.do("", "pin", mxc.removeprefix("mxc://"), EVIL)
    await own.rows(
        "UPDATE media SET content_type = $2, uploaded_by = $3 WHERE media_id = $1", media_id, EVIL, f"@{EVIL}:{A}"
    )
    remote = (await add(site, picture(82), name="x.jpg", user="oscar")).rpartition("/")[2]
    await own.rows(
        "UPDATE media SET server_name = $2, remote = true, uploaded_by = NULL WHERE media_id = $1", remote, EVIL
    )
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    await site.open(page)
    for name in [*PAGES, f"media/{A}/{media_id}"]:
        await go(page, name)
        assert await page.locator("img[src=x], main script").count() == 0, name
    await go(page, f"media/{A}/{media_id}")

    await expect(page.locator(".facts")).to_contain_text(EVIL)
    await expect(page.locator("td", has_text="onerror")).to_be_visible()
    assert await page.evaluate("window.pwned") is None
    await own.rows("DELETE FROM media WHERE media_id = ANY($1)", [media_id, remote])


async def test_every_text_of_the_console_stands_in_one_file(page: Page, site: ConsoleSite, browser: Browser) -> None:
    """A text without an entry is shown as its key, as in `nav.media`."""
    assert browser.is_connected()
    await site.open(page)
    for name in PAGES:
        await go(page, name)
        body = await page.locator("body").inner_text()
        assert [
            word for word in body.split() if word.startswith(("nav.", "action.", "audit.", "backlog.", "job."))
        ] == []
