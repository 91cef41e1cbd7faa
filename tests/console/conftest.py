"""The console in a real Chromium, before a real server with real media."""

import io
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.console.console_site import ConsoleSite, console_site

AXE = (Path(__file__).parent / "axe-core/axe.min.js").read_text()
IMAGES = Path(__file__).resolve().parents[2] / "docs/images"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    switches = ["--host-resolver-rules=MAP *.test 127.0.0.1", "--disable-dev-shm-usage"]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=switches, chromium_sandbox=False)
        yield running
        await running.close()


@pytest.fixture(scope="session")
async def site(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[ConsoleSite]:
    """Two homeservers with the console, and some media."""
    async with console_site(postgres, s3) as running:
        yield running


@pytest.fixture
async def page(browser: Browser, site: ConsoleSite) -> AsyncIterator[Page]:
    """A tab of its own; whatever the page complains of fails the test."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, base_url=site.url, locale="en-GB")
    opened, complaints = await context.new_page(), list[str]()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    yield opened
    await context.close()
    assert complaints == []


async def photograph(page: Page, name: str) -> None:
    """Take a picture for the documentation, when MEDIAREPO_SCREENSHOTS is set."""
    if os.environ.get("MEDIAREPO_SCREENSHOTS"):
        taken = Image.open(io.BytesIO(await page.screenshot(animations="disabled")))
        taken.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"console-{name}.png", optimize=True)


async def findings(page: Page) -> list[tuple[str, str, list[str]]]:
    """Return what axe finds that is serious or critical."""
    found: dict[str, Any] = await page.evaluate(f"async () => {{ {AXE}; return await axe.run(document); }}")
    return [
        (one["impact"], one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
