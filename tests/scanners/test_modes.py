"""EICAR is caught at each time, with a real clamd that is up, slow or down, on every way in."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import corners, encoded
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
from tests.support.remote_server import RemoteServer, remote_server, serving_file
from tests.support.scanners import EICAR, Wire, wait_until
from tests.support.website import Website, website

PART = 5 * 1024 * 1024
Start = Callable[..., AbstractAsyncContextManager[Installation]]


@pytest.fixture
def running(postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, certificate: Path, signing_key_file: Path) -> Start:
    """Starts an installation with the clamd behind the wire."""

    @asynccontextmanager
    async def start(when: str, **overrides: Any) -> AsyncIterator[Installation]:
        clamav = {"kind": "clamd", "address": f"unix:{wire.path}", "when": when, "check_interval_ms": 100, **overrides}
        document: dict[str, Any] = {
            "scanners": {"clamav": clamav},
            "homeservers": [
                homeserver(SERVER_NAME, TOKEN, url_previews=True, signing_key_file=str(signing_key_file)),
                homeserver(OTHER_SERVER_NAME, OTHER_TOKEN),
            ],
            "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": f"{certificate}.crt"},
            "uploads": {"part_bytes": PART},
            "remote_media": {"backoff_ms": 0, "remember_failure_ms": 0},
        }
        async with installed(settings_for(postgres, s3, **document)) as own:
            yield own

    return start


def bad() -> bytes:
    """Make a file that nobody has uploaded before, with EICAR in it."""
    return secrets.token_bytes(1000) + EICAR


def good() -> bytes:
    return secrets.token_bytes(1000)


async def upload(own: Installation, data: bytes) -> Answer:
    return await own.request("POST", "/_matrix/media/v3/upload", data=data, headers={"Content-Type": "image/png"})


def path_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    return f"/_matrix/client/v1/media/download/{answer.json['content_uri'].removeprefix('mxc://')}"


async def status(own: Installation, path: str) -> int:
    return (await own.get(path)).status


async def shown(own: Installation, path: str) -> None:
    await wait_until(lambda: _has(own, path, 200))


async def hidden(own: Installation, path: str) -> None:
    await wait_until(lambda: _has(own, path, 404))


async def _has(own: Installation, path: str, wanted: int) -> bool:
    return await status(own, path) == wanted


async def settled(own: Installation) -> None:
    """Wait until nothing waits for the scanner any more, and nothing is held."""
    await wait_until(lambda: _is_empty(own))


async def _is_empty(own: Installation) -> bool:
    waiting = await own.value("SELECT (SELECT count(*) FROM scan_queue) + (SELECT count(*) FROM scan_hold)")
    marks = await own.value("SELECT count(*) FROM media_mark")
    return (waiting, marks) == (0, 0)


async def scanner_is(own: Installation, *, up: bool) -> None:
    async def is_so() -> bool:
        scanning = own.repository.scanning
        assert scanning is not None
        return scanning.scanners[0].is_up is up

    await wait_until(is_so)


async def test_hold_shows_clean_files_soon_and_bad_ones_never(running: Start) -> None:
    async with running("hold") as own:
        clean, malware = path_of(await upload(own, good())), path_of(await upload(own, bad()))
        assert await status(own, malware) == 404
        await shown(own, clean)
        await settled(own)

        assert await status(own, malware) == 404
        assert await own.value("SELECT owner FROM quarantined_hash") == "scanner:clamav"


async def test_hold_hides_files_while_the_scanner_takes_its_time(running: Start, wire: Wire) -> None:
    async with running("hold") as own:
        await scanner_is(own, up=True)
        await wire.slow()
        clean, malware = path_of(await upload(own, good())), path_of(await upload(own, bad()))
        for path in (clean, malware):
            thumbnail = path.replace("/download/", "/thumbnail/") + "?width=32&height=32"
            legacy = path.replace("/client/v1/media/", "/media/v3/")
            assert [await status(own, one) for one in (path, thumbnail, legacy)] == [404, 404, 404]
        await wire.up()
        await shown(own, clean)
        await settled(own)

        assert await status(own, malware) == 404


async def test_a_copy_of_what_is_held_does_not_hide_what_was_shown_before(running: Start, wire: Wire) -> None:
    async with running("hold") as own:
        data = good()
        before = path_of(await upload(own, data))
        await shown(own, before)
        await own.rows("DELETE FROM scan_result")
        await wire.slow()
        after = path_of(await upload(own, data))

        assert [await status(own, before), await status(own, after)] == [200, 404]
        await wire.up()
        await shown(own, after)


async def test_what_was_scanned_is_not_scanned_again(running: Start, wire: Wire) -> None:
    async with running("hold") as own:
        data = good()
        await shown(own, path_of(await upload(own, data)))
        await wire.slow()

        assert await status(own, path_of(await upload(own, data))) == 200
        await wire.up()


@pytest.mark.parametrize("when", ["hold", "block"])
@pytest.mark.parametrize("size", [1000, 2 * PART + 1000])
async def test_a_scanner_that_is_down_holds_files_until_it_is_back(
    running: Start, wire: Wire, when: str, size: int
) -> None:
    async with running(when) as own:
        await wire.down()
        await scanner_is(own, up=False)
        clean = path_of(await upload(own, secrets.token_bytes(size)))
        malware = path_of(await upload(own, secrets.token_bytes(size) + EICAR))
        assert [await status(own, clean), await status(own, malware)] == [404, 404]
        await wire.up()
        await shown(own, clean)
        await settled(own)

        assert await status(own, malware) == 404


@pytest.mark.parametrize("when", ["hold", "block", "afterwards"])
async def test_a_scanner_that_is_down_closes_uploads_if_that_is_wanted(running: Start, wire: Wire, when: str) -> None:
    async with running(when, when_down={"local": "closed"}) as own:
        await wire.down()
        await scanner_is(own, up=False)
        refused = await upload(own, bad())
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
        assert await own.value("SELECT count(*) FROM media") == 0
        await wire.up()
        await scanner_is(own, up=True)

        assert (await upload(own, good())).status == 200


@pytest.mark.parametrize("when", ["hold", "block", "afterwards"])
async def test_a_scanner_that_is_down_lets_files_through_if_that_is_wanted_and_finds_them_later(
    running: Start, wire: Wire, when: str
) -> None:
    async with running(when, when_down={"local": "open"}) as own:
        await wire.down()
        await scanner_is(own, up=False)
        malware = path_of(await upload(own, bad()))
        assert await status(own, malware) == 200
        await wire.up()

        await hidden(own, malware)


async def test_what_is_held_is_let_through_when_the_scanner_goes_and_that_is_wanted(running: Start, wire: Wire) -> None:
    async with running("hold", when_down={"local": "open"}) as own:
        await scanner_is(own, up=True)
        await wire.slow()
        clean = path_of(await upload(own, good()))
        assert await status(own, clean) == 404
        await wire.down()

        await shown(own, clean)


@pytest.mark.parametrize("size", [0, 1000, 2 * PART + 1000])
async def test_block_refuses_bad_files_and_keeps_nothing_of_them(running: Start, size: int) -> None:
    async with running("block") as own:
        refused = await upload(own, secrets.token_bytes(size) + EICAR)

        assert (refused.status, refused.json["errcode"]) == (403, "M_FORBIDDEN")
        assert await own.value("SELECT (SELECT count(*) FROM media) + (SELECT count(*) FROM blob)") == 0
        assert await own.value("SELECT count(*) FROM quarantined_hash") == 1
        await own.repository.sweeps.outbox.drain()
        assert await own.object_keys() == set()
        again = await upload(own, secrets.token_bytes(size) + EICAR)
        assert again.status == 403


@pytest.mark.parametrize("size", [1000, 2 * PART + 1000])
async def test_block_shows_clean_files_at_once(running: Start, size: int) -> None:
    async with running("block") as own:
        data = secrets.token_bytes(size)
        for _ in range(2):
            answer = await own.get(path_of(await upload(own, data)))
            assert (answer.status, answer.body) == (200, data)
        assert await own.value("SELECT count(*) FROM blob") == 1


async def test_block_waits_for_a_slow_scanner(running: Start, wire: Wire) -> None:
    async with running("block") as own:
        await scanner_is(own, up=True)
        await wire.slow()
        uploading = asyncio.create_task(upload(own, bad()))
        await wait_until(lambda: _in_places(own))
        assert not uploading.done()
        await wire.up()

        assert (await uploading).status == 403


async def _in_places(own: Installation) -> bool:
    scanning = own.repository.scanning
    assert scanning is not None
    return scanning.scanners[0].places.in_use > 0


async def test_block_holds_files_when_the_scanner_is_too_slow(running: Start, wire: Wire) -> None:
    async with running("block", timeout_ms=300) as own:
        await scanner_is(own, up=True)
        await wire.slow()
        clean, malware = path_of(await upload(own, good())), path_of(await upload(own, bad()))
        assert [await status(own, clean), await status(own, malware)] == [404, 404]
        await wire.up()
        await shown(own, clean)
        await settled(own)

        assert await status(own, malware) == 404


@pytest.mark.parametrize("state", ["up", "slow", "down"])
async def test_afterwards_hides_what_is_found(running: Start, wire: Wire, state: str) -> None:
    async with running("afterwards") as own:
        await scanner_is(own, up=True)
        if state == "slow":
            await wire.slow()
        elif state == "down":
            await wire.down()
            await scanner_is(own, up=False)
        clean, malware = path_of(await upload(own, good())), path_of(await upload(own, bad()))
        if state != "up":
            assert await status(own, malware) == 200
        await wire.up()
        await hidden(own, malware)

        assert await status(own, clean) == 200


@pytest.mark.parametrize("when", ["hold", "block"])
async def test_announced_uploads_are_scanned(running: Start, when: str) -> None:
    async with running(when) as own:
        uris = [(await own.request("POST", "/_matrix/media/v1/create")).json["content_uri"] for _ in range(2)]
        paths = [uri.removeprefix("mxc://") for uri in uris]
        filled = [
            (await own.request("PUT", f"/_matrix/media/v3/upload/{path}", data=data)).status
            for path, data in zip(paths, [good(), bad()], strict=True)
        ]
        assert filled == ([200, 200] if when == "hold" else [200, 403])
        await shown(own, f"/_matrix/client/v1/media/download/{paths[0]}")
        await settled(own)

        assert await status(own, f"/_matrix/client/v1/media/download/{paths[1]}?timeout_ms=0") == (
            404 if when == "hold" else 504
        )


@pytest.fixture
async def origin(certificate: Path) -> AsyncIterator[RemoteServer]:
    async with remote_server(certificate) as server:
        yield server


@pytest.mark.parametrize("when", ["hold", "block", "afterwards"])
@pytest.mark.parametrize("size", [1000, 2 * PART + 1000])
async def test_other_servers_media_are_scanned_and_not_fetched_again(
    running: Start, origin: RemoteServer, when: str, size: int
) -> None:
    async with running(when) as own:
        origin.federation["clean"] = serving_file(secrets.token_bytes(size))
        origin.federation["malware"] = serving_file(secrets.token_bytes(size) + EICAR)
        clean, malware = (
            f"/_matrix/client/v1/media/download/{origin.server_name}/{name}" for name in ("clean", "malware")
        )
        if when == "block":
            assert [await status(own, clean), await status(own, malware)] == [200, 404]
        await hidden(own, malware)
        await shown(own, clean)
        await settled(own)

        async with asyncio.timeout(60):  # a tee is answered before its row is written
            while await own.value("SELECT count(*) FROM media WHERE remote AND state = 'ready'") != 2:
                await asyncio.sleep(0.01)
        assert await status(own, malware) == 404


@pytest.fixture
async def site() -> AsyncIterator[Website]:
    async with website() as web_site:
        yield web_site


async def test_images_of_previews_are_scanned(running: Start, site: Website) -> None:
    async with running("block") as own:
        picture = encoded(corners(40, 40), "PNG")
        for name, more in [("clean", b""), ("bad", EICAR)]:
            image = site.file(f"/{name}.png", picture + more, "image/png")
            site.page(f"/{name}", f'<title>A page</title><meta property="og:image" content="{image}">')
        answers = [
            await own.get(f"/_matrix/client/v1/media/preview_url?url={quote(f'{site.url}/{name}', safe='')}")
            for name in ("clean", "bad")
        ]

        assert ["og:image" in answer.json for answer in answers] == [True, False]


async def test_a_full_queue_counts_as_down(running: Start, wire: Wire) -> None:
    async with running("hold", queue_limit=1) as own:
        await scanner_is(own, up=True)
        await wire.slow()
        assert (await upload(own, good())).status == 200

        assert (await upload(own, good())).status == 503
        assert await own.value("SELECT count(*) FROM media") == 1
        await wire.up()
        await settled(own)
        assert (await upload(own, good())).status == 200


async def test_what_is_too_large_is_let_through_or_refused(running: Start) -> None:
    async with running("block", max_bytes=500) as own:
        assert await status(own, path_of(await upload(own, bad()))) == 200
    async with running("block", max_bytes=500, when_unscannable="closed") as own:
        assert (await upload(own, bad())).status == 403
    async with running("hold", max_bytes=500, when_unscannable="closed") as own:
        assert await status(own, path_of(await upload(own, bad()))) == 404


async def test_types_can_be_left_out_and_opaque_ones_are_counted(running: Start) -> None:
    async with running("block", except_content_types=["video/*"]) as own:
        headers = {"Content-Type": "video/mp4"}
        left_out = await own.request("POST", "/_matrix/media/v3/upload", data=bad(), headers=headers)
        headers = {"Content-Type": "application/octet-stream"}
        opaque = await own.request("POST", "/_matrix/media/v3/upload", data=good(), headers=headers)
        metrics = own.repository.foundation.metrics.exposition()[0].decode()

    assert (left_out.status, opaque.status) == (200, 200)
    assert 'mediarepo_scans_total{outcome="excluded_type",scanner="clamav"} 1.0' in metrics
    assert 'mediarepo_scans_total{outcome="opaque",scanner="clamav"} 1.0' in metrics


async def test_an_admin_shows_what_was_found_and_it_stays_shown(running: Start) -> None:
    async with running("afterwards") as own:
        data = bad()
        malware = path_of(await upload(own, data))
        await hidden(own, malware)
        await own.rows("DELETE FROM quarantined_hash")
        await own.rows("UPDATE scan_result SET signatures = 'older'")
        assert await status(own, path_of(await upload(own, data))) == 200
        await settled(own)

        assert await status(own, malware) == 200
