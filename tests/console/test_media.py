"""Finding media, looking at them, acting on them, and undoing it."""

import pytest
from playwright.async_api import Page, expect

from tests.console.conftest import photograph
from tests.console.console_site import PASSWORD, ConsoleSite, add, go, picture
from tests.pictures.filmed import sample
from tests.pictures.sounds import plain_wave
from tests.pictures.vectors import GOOD
from tests.support.tenants import A


async def search(page: Page, words: str) -> None:
    await page.get_by_label("Search", exact=True).fill(words)
    await page.get_by_role("button", name="Search").click()


async def downloads(site: ConsoleSite, mxc: str) -> int:
    return await site.tenants.status(mxc.removeprefix("mxc://"), at=A)


@pytest.mark.parametrize("form", ["{mxc}", "https://matrix.to/#/{mxc}", "http://x/_matrix/media/v3/download/{path}"])
async def test_an_address_opens_its_media(page: Page, site: ConsoleSite, form: str) -> None:
    mxc = await add(site, picture(20), name="addressed.jpg")
    await site.open(page, "media")
    await search(page, form.format(mxc=mxc, path=mxc.removeprefix("mxc://")))

    await expect(page.locator(".address")).to_contain_text(mxc)


async def test_media_are_found_by_user_name_type_and_hash(page: Page, site: ConsoleSite) -> None:
    mxc = await add(site, picture(21), name="findme.jpg", user="erin")
    sha256 = (await site.tenants.ask("", "GET", f"/media/{mxc.removeprefix('mxc://')}")).json["sha256"]
    await site.open(page, "media")
    for words in (f"@erin:{A}", "findme", sha256, f"https://matrix.to/#/@erin:{A}"):
        await search(page, words)
        await expect(page.locator(".tile > a")).to_have_text(["findme.jpg"])
        await go(page, "media")
    await go(page, f"media?content_type=video/&user_id=@erin:{A}")

    await expect(page.get_by_text("No media match these conditions.")).to_be_visible()


async def test_a_picture_is_fetched_only_when_asked_and_the_look_is_audited(page: Page, site: ConsoleSite) -> None:
    mxc = await add(site, picture(22), name="look.jpg", user="frank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await site.open(page, f"media?user_id=@frank:{A}")
    await expect(page.get_by_role("button", name="Show the picture look.jpg")).to_be_visible()
    before = [url for url in asked if "/view" in url or "thumbnail" in url or "download" in url]
    await page.get_by_role("button", name="Show the picture look.jpg").click()
    await expect(page.get_by_role("img", name="Thumbnail of look.jpg")).to_be_visible()

    shown = await page.get_by_role("img", name="Thumbnail of look.jpg").evaluate("image => image.naturalWidth")
    assert before == []
    assert shown == 320
    audit = (await site.tenants.ask("", "GET", f"/audit?target={mxc}")).json["entries"]
    assert [(one["admin"], one["action"]) for one in audit] == [("operator", "view")]


@pytest.mark.parametrize(
    ("data", "name", "content_type", "size"),
    [(sample(), "clip.mp4", "video/mp4", 320), (GOOD["plain"], "drawing.svg", "image/svg+xml", 400)],
)
async def test_optional_formats_are_shown_where_they_are_on(
    page: Page, site: ConsoleSite, data: bytes, name: str, content_type: str, size: int
) -> None:
    await add(site, data, name=name, content_type=content_type, user=f"u{size}")
    await site.open(page, f"media?user_id=@u{size}:{A}")
    await page.get_by_role("button", name=f"Show the picture {name}").click()
    await expect(page.get_by_role("img", name=f"Thumbnail of {name}")).to_be_visible()

    shown = await page.get_by_role("img", name=f"Thumbnail of {name}").evaluate("image => image.naturalWidth")
    assert shown == size


async def test_sound_has_no_button_where_waveforms_are_off(page: Page, site: ConsoleSite) -> None:
    await add(site, plain_wave(), name="sound.wav", content_type="audio/wav", user="musician")
    await site.open(page, f"media?user_id=@musician:{A}")

    await expect(page.locator(".tile .kind")).to_have_text("Audio")
    await expect(page.get_by_role("button", name="Show the picture sound.wav")).to_have_count(0)


async def test_what_is_encrypted_is_shown_as_such(page: Page, site: ConsoleSite) -> None:
    await add(site, b"\x8f" * 500, name="", content_type="application/octet-stream", user="grace")
    await site.open(page, f"media?user_id=@grace:{A}")

    await expect(page.locator(".tile .kind")).to_have_text("Encrypted, or of unknown type")
    await expect(page.get_by_role("button", name="Show", exact=True)).to_have_count(0)


async def test_a_moderator_hides_a_reported_picture_everywhere_undoes_it_and_finds_it_audited(
    page: Page, site: ConsoleSite
) -> None:
    """As on a phone, with the homeserver's account."""
    await page.set_viewport_size({"width": 390, "height": 844})
    data = picture(23)
    mxc, copy = await add(site, data, name="reported.jpg"), await add(site, data, name="copy.jpg", user="bob")
    await page.goto("/_mediarepo/console/")
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="Media", exact=True).click()
    await search(page, f"https://matrix.to/#/{mxc}")
    await page.get_by_role("button", name="Quarantine").click()
    await expect(page.get_by_role("dialog")).to_contain_text("This affects 2 media items")
    await page.get_by_label("Reason").fill("report 12")
    await photograph(page, "quarantine-phone")
    await page.get_by_role("dialog").get_by_role("button", name="Quarantine").click()
    await expect(page.locator("#told")).to_contain_text("2 media items quarantined.")
    hidden = [await downloads(site, mxc), await downloads(site, copy)]
    await page.locator("#told").get_by_role("button", name="Undo").click()
    await expect(page.locator("#told")).to_contain_text("Quarantine of 2 media items lifted.")
    shown = [await downloads(site, mxc), await downloads(site, copy)]
    await go(page, f"audit?target={mxc}")

    assert (hidden, shown) == ([404, 404], [200, 200])
    actions = page.locator('td[data-label="Action"]')
    await expect(actions).to_have_text(["unquarantine", "quarantine"])
    await expect(page.locator('td[data-label="Who"]').first).to_have_text(f"@admin:{A}")
    await expect(page.locator('td[data-label="Reason"]').last).to_have_text("report 12")


async def test_a_selection_is_deleted_and_restored(page: Page, site: ConsoleSite) -> None:
    mxcs = [await add(site, picture(30 + n), name=f"pick {n}.jpg", user="heidi") for n in range(3)]
    await site.open(page, f"media?user_id=@heidi:{A}")
    await page.get_by_label("Select pick 0.jpg").check()
    await page.get_by_label("Select pick 2.jpg").check()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("dialog")).to_contain_text("This affects 2 media items")
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator("#told")).to_contain_text("2 media items moved into the trash.")
    deleted = [await downloads(site, mxc) for mxc in mxcs]
    await page.locator("#told").get_by_role("button", name="Undo").click()
    await expect(page.locator("#told")).to_contain_text("2 media items restored.")

    assert deleted == [404, 200, 404]
    assert [await downloads(site, mxc) for mxc in mxcs] == [200, 200, 200]


async def test_all_that_a_search_finds_are_acted_on_with_their_number_told_before(
    page: Page, site: ConsoleSite
) -> None:
    mxcs = [await add(site, picture(40 + n), name=f"all {n}.jpg", user="ivan") for n in range(5)]
    await site.open(page, f"media?user_id=@ivan:{A}")
    await page.get_by_text("Act on all 5 that match").click()
    await page.get_by_role("button", name="Hold", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("This affects 5 media items")
    await page.get_by_role("dialog").get_by_role("button", name="Hold").click()
    await expect(page.locator("#told")).to_contain_text("Hold put on 5 media items.")

    held = await site.tenants.ask("", "GET", f"/media_count?user_id=@ivan:{A}&held=true")
    assert held.json["media_count"] == len(mxcs)


@pytest.mark.parametrize("action", ["Pin", "Protect", "Hold"])
async def test_single_media_are_marked_and_unmarked(page: Page, site: ConsoleSite, action: str) -> None:
    mxc = await add(site, picture(50), name=f"{action}.jpg", user="judy")
    opposite = {"Pin": "Unpin", "Protect": "Unprotect", "Hold": "Release hold"}[action]
    await site.open(page, f"media/{mxc.removeprefix('mxc://')}")
    await page.get_by_role("button", name=action, exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name=action).click()
    await page.get_by_role("button", name=opposite, exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name=opposite).click()

    await expect(page.get_by_role("button", name=action, exact=True)).to_be_visible()
    await expect(page.locator('td[data-label="Action"]')).to_have_count(2)


async def test_more_pages_are_loaded_by_key(page: Page, site: ConsoleSite) -> None:
    for number in range(50):
        await add(site, b"%d" % number * 40, name=f"page {number}", content_type="text/plain", user="kim")
    await site.open(page, f"media?user_id=@kim:{A}")
    first = await page.locator(".tile").count()
    await page.get_by_role("button", name="Show more").click()
    await expect(page.locator(".tile")).to_have_count(50)

    assert first == 48
    names = await page.locator(".tile > a").all_text_contents()
    assert names == [f"page {number}" for number in reversed(range(50))]


async def test_a_cancelled_question_changes_nothing(page: Page, site: ConsoleSite) -> None:
    mxc = await add(site, picture(60), name="kept.jpg", user="leo")
    await site.open(page, f"media/{mxc.removeprefix('mxc://')}")
    await page.get_by_role("button", name="Delete").click()
    await page.keyboard.press("Escape")

    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert await downloads(site, mxc) == 200


async def test_a_selection_offers_the_actions_that_apply(page: Page, site: ConsoleSite) -> None:
    await site.open(page, "media?content_type=image/&upload_name=holiday")
    await page.get_by_role("button", name="Show the picture holiday 5").click()
    await expect(page.get_by_role("img", name="Thumbnail of holiday 5.jpg")).to_be_visible()
    await page.get_by_label("Select holiday 5.jpg").check()
    await page.get_by_label("Select holiday 4.jpg").check()
    await page.get_by_text("More conditions").click()
    await page.evaluate("document.activeElement.blur()")
    await photograph(page, "media")

    offered = await page.locator(".selection button").all_text_contents()
    assert offered == ["Quarantine", "Delete", "Hold", "Pin", "Protect", "Clear the selection"]


async def test_the_detail_names_the_copies_and_who_was_first(page: Page, site: ConsoleSite) -> None:
    await site.open(page, "media?upload_name=again")
    await page.get_by_role("link", name="again the same.jpg").click()
    await page.get_by_role("button", name="Show the picture again the same").click()
    await expect(page.get_by_role("img", name="Thumbnail of again the same.jpg")).to_be_visible()
    await page.evaluate("document.activeElement.blur()")
    await photograph(page, "detail")

    copies = await page.locator(".copies li").all_text_contents()
    assert [(f"@carol:{A}" in one, f"@bob:{A}" in one, "first" in one) for one in copies] == [
        (True, False, False),
        (False, True, True),
    ]
