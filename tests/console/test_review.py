"""Deciding on what users reported to the homeserver."""

from typing import Any

from playwright.async_api import Page, expect

from tests.console.conftest import findings, photograph
from tests.console.console_site import PASSWORD, ConsoleSite, add, go, picture
from tests.support.tenants import A


def report(site: ConsoleSite, number: int, content: dict[str, Any], reason: str = "not nice") -> None:
    site.tenants.homeserver.reports[number] = {
        "id": number,
        "received_ts": 1_700_000_000_000 + number,
        "room_id": f"!room:{A}",
        "name": "Holidays",
        "event_id": f"$event{number}",
        "user_id": f"@carol:{A}",
        "reason": reason,
        "sender": f"@alice:{A}",
        "event_json": {"type": "m.room.message", "content": content},
    }


async def review(page: Page) -> None:
    await page.goto("/_mediarepo/console/")
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="Review").click()
    await expect(page.locator(".review")).to_be_visible()


async def status(site: ConsoleSite, mxc: str) -> int:
    return await site.tenants.status(mxc.removeprefix("mxc://"), at=A)


async def test_reports_are_decided_by_keyboard(page: Page, site: ConsoleSite) -> None:
    kept, hidden, deleted = [await add(site, picture(90 + n), name=f"reported {n}.jpg") for n in range(3)]
    report(site, 3, {"msgtype": "m.image", "url": kept})
    report(site, 2, {"msgtype": "m.image", "url": hidden, "info": {"thumbnail_url": hidden}}, "spam")
    report(site, 1, {"file": {"url": deleted}})
    await review(page)
    await expect(page.get_by_role("heading", name="Report 1 of 3")).to_be_visible()
    await page.keyboard.press("k")
    await expect(page.locator("#told")).to_contain_text("Kept.")
    await expect(page.locator(".tile > a")).to_have_text(["reported 1.jpg"])
    await photograph(page, "review")
    assert await findings(page) == []
    await page.keyboard.press("h")
    await expect(page.locator("#told")).to_contain_text("Hidden: 1 media in all.")
    await expect(page.locator(".tile > a")).to_have_text(["reported 2.jpg"])
    await page.keyboard.press("d")
    await expect(page.get_by_text("There are no reports to decide.")).to_be_visible()

    assert [await status(site, mxc) for mxc in (kept, hidden, deleted)] == [200, 404, 404]
    assert site.tenants.homeserver.reports == {}
    entries = (await site.tenants.ask("", "GET", f"/audit?target={hidden}")).json["entries"]
    assert [(one["admin"], one["reason"]) for one in entries] == [(f"@admin:{A}", "reported event $event2: spam")]
    await page.locator("#told").get_by_role("button", name="Undo").click()
    await expect(page.locator("#told")).to_contain_text("1 media item restored.")
    assert await status(site, deleted) == 200


async def test_a_report_that_another_moderator_decided_is_told_and_nothing_is_undone(
    page: Page, site: ConsoleSite
) -> None:
    mxc = await add(site, picture(95), name="twice.jpg")
    report(site, 5, {"url": mxc})
    await review(page)
    await expect(page.locator(".tile > a")).to_have_text(["twice.jpg"])
    await site.tenants.do(A, "quarantine", mxc.removeprefix("mxc://"), "the other moderator")
    del site.tenants.homeserver.reports[5]
    await page.get_by_role("button", name="Keep (K)").click()

    await expect(page.locator("#told")).to_contain_text("Somebody else has decided this report meanwhile.")
    assert await status(site, mxc) == 404


async def test_what_is_protected_is_not_hidden_and_its_report_stays_open(page: Page, site: ConsoleSite) -> None:
    mxc = await add(site, picture(96), name="protected.jpg")
    await site.tenants.do(A, "protect", mxc.removeprefix("mxc://"))
    report(site, 6, {"url": mxc})
    await review(page)
    await page.get_by_role("button", name="Hide (H)").click()
    await expect(page.locator("#told")).to_contain_text("protected from quarantine")

    assert list(site.tenants.homeserver.reports) == [6]
    site.tenants.homeserver.reports.clear()


async def test_hostile_reports_stay_text_and_keys_do_nothing_in_fields(page: Page, site: ConsoleSite) -> None:
    evil = "<img src=x onerror='window.pwned=1'>"
    report(site, 7, {"url": f"mxc://{evil}/x", "body": evil}, evil)
    await review(page)
    await expect(page.locator(".facts")).to_contain_text(evil)
    await expect(page.get_by_role("button", name="Hide (H)")).to_be_disabled()
    await go(page, "media")
    await page.get_by_label("Search", exact=True).press_sequentially("khd")

    assert list(site.tenants.homeserver.reports) == [7]
    assert await page.evaluate("window.pwned") is None
    site.tenants.homeserver.reports.clear()


async def test_the_operator_has_no_reports_of_a_homeserver(page: Page, site: ConsoleSite) -> None:
    await site.open(page)

    assert await page.get_by_role("link", name="Review").count() == 0
