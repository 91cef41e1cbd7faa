"""Signing in, and what the session leaves behind."""

import re

import pytest
from playwright.async_api import Page, expect

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.console.console_site import PASSWORD, ConsoleSite
from tests.support.installation import SERVER_NAME, installed, settings_for
from tests.support.tenants import OPERATOR, A, admin_of

CONSOLE = "/_mediarepo/console/"


async def sign_in(page: Page, user: str, password: str) -> None:
    await page.goto(CONSOLE)
    await page.get_by_label("User name").fill(user)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def test_an_admin_signs_in_with_the_homeservers_password_and_sees_that_homeserver(page: Page) -> None:
    await sign_in(page, "admin", PASSWORD)

    await expect(page.locator("header")).to_contain_text(f"@admin:{A}")
    await expect(page.locator("nav a")).to_have_text(["Overview", "Review", "Media", "Users", "Audit log"])


async def test_signing_out_ends_the_homeservers_session(page: Page, site: ConsoleSite) -> None:
    await sign_in(page, "admin", PASSWORD)
    await page.get_by_role("button", name="Sign out").click()

    await expect(page.get_by_label("User name")).to_be_visible()
    assert admin_of(A) in site.tenants.homeserver.logged_out
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_wrong_password_is_told_in_the_homeservers_words(page: Page) -> None:
    await sign_in(page, "admin", "wrong")

    await expect(page.get_by_role("alert")).to_contain_text("Invalid username or password")


async def test_a_user_who_is_no_admin_is_refused_and_signed_out_again(page: Page, site: ConsoleSite) -> None:
    await sign_in(page, "user", PASSWORD)

    await expect(page.get_by_role("alert")).to_contain_text("This account may not use the console.")
    assert f"users-token-{A}" in site.tenants.homeserver.logged_out


async def test_an_admin_signs_in_by_single_sign_on(page: Page) -> None:
    await page.goto(CONSOLE)
    await page.get_by_role("button", name="Sign in with single sign-on").click()

    await expect(page.locator("header")).to_contain_text(f"@admin:{A}")
    assert "loginToken" not in page.url


async def test_the_token_is_kept_by_the_tab_alone(page: Page, site: ConsoleSite) -> None:
    await site.open(page)
    other = await page.context.new_page()
    await other.goto(CONSOLE)

    await expect(other.get_by_label("Token")).to_be_visible()
    assert await page.context.cookies() == []
    assert await page.evaluate("localStorage.length") == 0
    assert OPERATOR not in page.url


async def test_a_token_that_ends_brings_back_the_sign_in_page(page: Page, site: ConsoleSite) -> None:
    await site.open(page)
    await page.evaluate("sessionStorage.setItem('mediarepo.token', 'gone')")
    await page.evaluate("location.hash = '#/users'")

    await expect(page.get_by_role("alert")).to_contain_text("The session has ended")


async def test_pages_are_reached_and_left_by_keyboard(page: Page) -> None:
    await page.goto(CONSOLE)
    await page.get_by_label("Token").focus()
    await page.keyboard.type(OPERATOR)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")

    assert await page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("path", ["/", "/app.js"])
async def test_the_console_is_off_by_default(postgres: EmbeddedPostgres, s3: EmbeddedS3, path: str) -> None:
    async with installed(settings_for(postgres, s3)) as own:
        answer = await own.get(f"/_mediarepo/console{path}")

    assert answer.status == 404
    assert answer.json["errcode"] == "M_UNRECOGNIZED"


async def test_pages_run_nothing_but_the_consoles_own_scripts(site: ConsoleSite) -> None:
    answer = await site.tenants.own.get(CONSOLE, host=f"{A}:8448", token=None)
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))

    assert answer.status == 200
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"{A}:8448/_mediarepo/console/"
    assert policy["connect-src"] == f"'self' {site.tenants.homeserver.url}"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == "'none'"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert re.search(r"<script(?! type=\"module\" src)|style=|javascript:", answer.body.decode()) is None


@pytest.mark.parametrize("host", ["a.test; script-src *", "x y", "a.test,b", SERVER_NAME])
async def test_a_made_up_host_is_no_source_of_scripts(site: ConsoleSite, host: str) -> None:
    answer = await site.tenants.own.get(CONSOLE, token=None, headers={"X-Forwarded-Host": host})
    policy = answer.headers["Content-Security-Policy"]

    assert policy.count("script-src") == 1
    assert "*" not in policy


async def test_files_are_revalidated_and_unknown_ones_are_404(site: ConsoleSite) -> None:
    own = site.tenants.own
    first = await own.get(f"{CONSOLE}app.js", token=None, host=A)
    again = await own.get(f"{CONSOLE}app.js", token=None, host=A, headers={"If-None-Match": first.headers["ETag"]})
    unknown = await own.get(f"{CONSOLE}..%2Fpages.py", token=None, host=A)

    assert (first.status, again.status, unknown.status) == (200, 304, 404)
    assert first.headers["Cache-Control"] == "no-cache"


async def test_a_users_script_on_the_same_host_is_not_run(page: Page, site: ConsoleSite) -> None:
    """Media are sandboxed, and the console takes scripts from its own folder only."""
    await site.open(page)
    blocked = await page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const script = document.createElement("script");
            try { script.src = "/_matrix/media/v3/download/a.test/x"; } catch (error) { resolve(error.name); return; }
            document.head.append(script);
        })"""
    )

    assert blocked in {"TypeError", "script-src-elem", "require-trusted-types-for"}
