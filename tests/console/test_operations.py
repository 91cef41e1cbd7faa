"""Overview, retention, tasks and the audit log."""

import csv
import io
from pathlib import Path

from playwright.async_api import Page, expect

from tests.console.conftest import photograph
from tests.console.console_site import ConsoleSite, add, go, picture
from tests.support.tenants import A


async def test_the_overview_shows_growth_users_and_background_work(page: Page, site: ConsoleSite) -> None:
    await site.open(page)
    await expect(page.get_by_text("Everything responds")).to_be_visible()
    await expect(page.get_by_role("img", name="Bytes stored in S3, by day")).to_be_visible()
    await expect(page.get_by_text("At the rate of the last 30 days")).to_be_visible()
    await expect(page.get_by_role("link", name=f"@dave:{A}")).to_be_visible()
    await expect(page.get_by_text("Storage costs €0.24 a month now, and €0.29 then.")).to_be_visible()
    await photograph(page, "overview")
    await page.get_by_text("The figures as a table").click()

    await expect(page.get_by_role("columnheader", name="Thumbnails")).to_be_visible()


async def test_a_policy_is_planned_checked_armed_run_and_disarmed(page: Page, site: ConsoleSite) -> None:
    mxc = await add(site, picture(70), name="old.jpg", user="old")
    await site.tenants.own.rows("UPDATE media SET created_ts = 1 WHERE media_id = $1", mxc.rpartition("/")[2])
    await site.open(page, "retention")
    policy = page.locator("section", has=page.get_by_role("heading", name="huge-uploads"))
    await expect(policy.get_by_role("button", name="Run once")).to_be_disabled()
    await policy.get_by_role("button", name="Plan").click()
    await site.tenants.own.repository.administration.tasks.run_waiting()
    await expect(policy.get_by_text("It would delete 1 media items")).to_be_visible(timeout=30_000)
    await policy.get_by_text("Examples").click()
    await expect(policy.get_by_text(mxc)).to_be_visible()
    await photograph(page, "retention")
    await policy.get_by_role("button", name="Arm").click()
    await page.get_by_role("dialog").get_by_role("button", name="Arm").click()
    await expect(policy.get_by_text("armed by operator")).to_be_visible()
    await policy.get_by_role("button", name="Disarm").click()
    await page.get_by_role("dialog").get_by_role("button", name="Disarm").click()
    await expect(policy.get_by_text("not armed")).to_be_visible()
    await policy.get_by_role("button", name="Run once").click()
    await page.get_by_role("dialog").get_by_role("button", name="Run once").click()
    await expect(page.locator("#told")).to_contain_text("running")
    await site.tenants.own.repository.administration.tasks.run_waiting()

    await expect(page.locator("#told")).to_contain_text("The policy has run.", timeout=30_000)
    assert await site.tenants.status(mxc.removeprefix("mxc://"), at=A) == 404


async def test_a_check_of_the_stores_is_started_and_watched_to_its_end(page: Page, site: ConsoleSite) -> None:
    await site.open(page, "tasks")
    await page.get_by_role("button", name="Check the stores (fsck)").click()
    await page.get_by_role("dialog").get_by_role("button", name="Start").click()
    row = page.get_by_role("row", name="fsck").first
    await expect(row).to_be_visible()
    await site.tenants.own.repository.administration.tasks.run_waiting()

    await expect(row.get_by_text("done", exact=True)).to_be_visible(timeout=30_000)


async def test_the_audit_log_is_filtered_saved_as_csv_and_undone(page: Page, site: ConsoleSite, tmp_path: Path) -> None:
    mxc = await add(site, picture(71), name="audited.jpg", user="mia")
    media = mxc.removeprefix("mxc://")
    await site.tenants.do("", "pin", media, '=HYPERLINK("http://evil")')
    await site.tenants.do("", "hold", media, "case 7")
    await site.open(page, f"audit?target={mxc}&action=pin")
    await expect(page.locator('td[data-label="Action"]')).to_have_text(["pin"])
    async with page.expect_download() as saved:
        await page.get_by_role("button", name="Save as CSV").click()
    await (await saved.value).save_as(tmp_path / "audit.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "audit.csv").read_text())))
    await go(page, f"audit?target={mxc}")
    await page.get_by_role("row", name="case 7").get_by_role("button", name="Undo").click()
    await page.get_by_role("dialog").get_by_role("button", name="Release hold").click()
    await expect(page.locator('td[data-label="Action"]').first).to_have_text("release")

    assert [(row["action"], row["reason"]) for row in rows] == [("pin", '\'=HYPERLINK("http://evil")')]
    record = (await site.tenants.ask("", "GET", f"/media/{media}")).json
    assert (record["held_by"], record["pinned_by"]) == (None, "operator")


async def test_users_are_listed_with_what_they_store(page: Page, site: ConsoleSite) -> None:
    await site.open(page, "users")
    await page.get_by_role("link", name=f"@carol:{A}").click()

    await expect(page.locator(".tile").first).to_contain_text(f"@carol:{A}")


async def test_an_import_is_watched_to_its_end(page: Page, site: ConsoleSite) -> None:
    own = site.tenants.own
    await own.rows("INSERT INTO import_source (name, kind, created_ts) VALUES ('old-synapse', 'synapse', 1)")
    await own.rows(
        """INSERT INTO import_run (source_id, command, started_ts, heartbeat_ts, figures)
           SELECT source_id, 'run', t, t, '{"rows": 17}'
           FROM import_source, (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS t) now"""
    )
    await site.open(page, "tasks")
    row = page.get_by_role("row", name="old-synapse")
    await expect(row).to_contain_text('{"rows":17}')
    await expect(row).to_contain_text("running")
    await own.rows("UPDATE import_run SET finished_ts = heartbeat_ts, complete = true, figures = '{\"rows\": 55}'")

    await expect(row).to_contain_text('{"rows":55}', timeout=30_000)
    await expect(row).to_contain_text("done")
    await own.rows("DELETE FROM import_source")
