"""Pages read behind the sandbox: the same answers, and one bad page costs nobody else anything."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediarepo.model.previews import Page, PreviewLimits
from mediarepo.previews import worker
from mediarepo.previews.encoding import KNOWN_CODECS
from mediarepo.previews.page import read_page
from mediarepo.sandbox.process import SandboxedProcess
from mediarepo.services.preview_pages import PageError, PreviewParser
from tests.previews.corpus import PAGES, load, preview_of
from tests.previews.hostile_bodies import BODIES

URL = "https://example.org/"


@pytest.fixture(scope="module")
async def reading() -> AsyncIterator[PreviewParser]:
    async with PreviewParser() as running:
        yield running


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
async def test_the_sandbox_changes_no_answer(reading: PreviewParser, path: Path) -> None:
    sent = load(path)
    page, preview = preview_of(sent)

    read = await reading.read_page(sent.body, url=sent.url, content_type=sent.content_type, max_bytes=2**21)

    assert read == page
    if page is not None:
        assert await reading.make(page, sent.oembed, PreviewLimits()) == preview
    else:
        assert await reading.make_of_file(sent.url, sent.content_type, None, PreviewLimits()) == preview


@pytest.mark.parametrize("codec", sorted(KNOWN_CODECS))
async def test_every_encoding_is_read_behind_the_sandbox(reading: PreviewParser, codec: str) -> None:
    body = b"<title>\xc4\xd6 \xe3\x81\x82 \x8a\xbf \xc7</title>" + bytes(range(128, 256)) * 3
    content_type = f"text/html; charset={codec.replace('_', '-')}"

    read = await reading.read_page(body, url=URL, content_type=content_type, max_bytes=2**21)

    assert read == read_page(body, url=URL, content_type=content_type)


@pytest.mark.parametrize("name", sorted(BODIES))
async def test_a_hostile_page_is_read_behind_the_sandbox_too(reading: PreviewParser, name: str) -> None:
    content_type, make = BODIES[name]

    page = await reading.read_page(make()[: 2**21], url=URL, content_type=content_type, max_bytes=2**21)

    assert page is None or page.url == URL


async def test_a_reader_that_dies_costs_one_page(reading: PreviewParser) -> None:
    async with PreviewParser() as own:
        await own.read_page(b"<title>a</title>", url=URL, content_type="text/html", max_bytes=1000)
        (pid,) = own.pids
        os.kill(pid, signal.SIGSTOP)
        stuck = asyncio.create_task(own.read_page(b"<p>b", url=URL, content_type="text/html", max_bytes=1000))
        await asyncio.sleep(0)
        other = await reading.read_page(b"<title>c</title>", url=URL, content_type="text/html", max_bytes=1000)
        os.kill(pid, signal.SIGKILL)

        with pytest.raises(PageError):
            await stuck
        assert other is not None
        again = await own.read_page(b"<title>d</title>", url=URL, content_type="text/html", max_bytes=1000)
        assert again is not None
        assert again.title == "d"


async def test_a_reader_has_neither_environment_nor_descriptors_nor_user_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDIAREPO_SECRET", "s3cret")
    async with PreviewParser() as own:
        await own.read_page(b"<title>a</title>", url=URL, content_type="text/html", max_bytes=1000)
        (pid,) = own.pids
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        if os.getuid() == 0:  # only root may look at a process that is not dumpable
            targets = {str(one.readlink()) for one in (proc / "fd").iterdir()}
            files = {one for one in targets if one.startswith("/") and one != "/dev/null"}
            assert not {one for one in files if "/libffi.so" not in one}  # a recent libffi holds itself open
            assert b"s3cret" not in (proc / "environ").read_bytes()
            assert status["Uid"].split() == ["65534"] * 4
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"size_bytes": 10**9},
        {"size_bytes": -1},
        {"size_bytes": "7"},
        {},
        {"size_bytes": 7},
    ],
)
async def test_what_a_reader_must_not_say_is_not_believed(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered(*_: object, **__: object) -> dict[str, Any]:
        return answer

    async with PreviewParser() as own:
        await own.read_page(b"<p>", url=URL, content_type="text/html", max_bytes=1000)
        (pid,) = own.pids
        monkeypatch.setattr(SandboxedProcess, "ask", answered)
        with pytest.raises(PageError):
            await own.make(Page(url=URL), None, PreviewLimits())
        assert pid not in own.pids


@pytest.mark.parametrize("data", [b'{"values": {"og:title": {}}}', b"[]", b"{", b'{"values": {"x": 1.5}}', b"null"])
def test_only_the_shape_of_a_preview_is_one(data: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        worker.PREVIEW.validate_json(data, strict=True)
    assert json.loads(worker.PREVIEW.dump_json(worker.PREVIEW.validate_json(b'{"values": {"a": "b"}}')))
