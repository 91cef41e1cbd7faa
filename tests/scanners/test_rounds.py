"""Rounds over stored content, crashes, lost rows, and scanners that nobody configured."""

import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mediarepo.app.repository import jobs_of
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.scans import HELD_REASON
from tests.support.installation import Installation, document_for, installed, settings_for
from tests.support.scanners import EICAR, HttpService, Wire, wait_until
from tests.support.serving import serving


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3, service: HttpService) -> AsyncIterator[Installation]:
    scanner = {"kind": "http", "address": service.url, "when": "afterwards", "rescan_interval_ms": 0}
    async with installed(settings_for(postgres, s3, scanners={"checker": scanner})) as running:
        yield running


async def status(own: Installation, media_id: str) -> int:
    return (await own.get(own.download_path(media_id))).status


async def go_round(own: Installation) -> None:
    """Let everything be old enough, and do the scheduled job."""
    await own.rows("UPDATE blob SET created_ts = created_ts - 3600000")
    await own.rows("DELETE FROM job_run")
    for job in jobs_of(own.repository):
        if job.name == "scans_checker":
            await job.run()


async def scanned(own: Installation, count: int) -> None:
    async def are_there() -> bool:
        return bool(await own.value("SELECT count(*) = $1 FROM scan_result", count))

    await wait_until(are_there)


async def test_new_signatures_find_what_is_stored_and_newer_ones_show_it_again(
    own: Installation, service: HttpService
) -> None:
    marked = secrets.token_bytes(8)
    media_id, other_id = await own.upload(b"before " + marked), await own.upload(secrets.token_bytes(100))
    await scanned(own, 2)
    assert await status(own, media_id) == 200

    service.signatures, service.unwanted = "2", marked
    await go_round(own)
    assert [await status(own, media_id), await status(own, other_id)] == [404, 200]

    service.signatures, service.unwanted = "3", EICAR
    await go_round(own)
    assert await status(own, media_id) == 200
    assert await own.value("SELECT count(*) FROM quarantined_hash") == 0


async def test_a_round_scans_nothing_twice(own: Installation, service: HttpService) -> None:
    for _ in range(3):
        await own.upload(secrets.token_bytes(100))
    await scanned(own, 3)
    asked = len(service.asked)
    await go_round(own)
    await go_round(own)

    assert len(service.asked) == asked
    assert await own.value("SELECT finished_ts IS NOT NULL FROM scan_round")


async def test_a_round_finds_what_an_import_brought_and_learns_its_hash(own: Installation) -> None:
    media_id = await own.upload(b"adopted " + EICAR)
    await scanned(own, 1)
    await own.rows("DELETE FROM scan_result")
    await own.rows("DELETE FROM quarantined_hash")
    await own.rows("UPDATE blob SET sha256 = NULL, sha256_state = 'unknown'")
    assert await status(own, media_id) == 200

    await go_round(own)
    assert await status(own, media_id) == 404


async def test_another_ones_quarantine_outlasts_the_scanners(own: Installation, service: HttpService) -> None:
    marked = secrets.token_bytes(8)
    media_id = await own.upload(b"both " + marked)
    await scanned(own, 1)
    await own.rows(
        """INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, created_ts, owner, scope)
           SELECT sha256, size_bytes, '@admin:a', 1, '', '' FROM blob"""
    )
    service.signatures, service.unwanted = "2", marked
    await go_round(own)
    service.signatures, service.unwanted = "3", EICAR
    await go_round(own)

    assert await status(own, media_id) == 404
    assert [row["owner"] for row in await own.rows("SELECT owner FROM quarantined_hash")] == [""]


async def test_a_scanner_that_is_down_stops_the_round_where_it_is(own: Installation, service: HttpService) -> None:
    await own.upload(secrets.token_bytes(100))
    await scanned(own, 1)
    await own.rows("DELETE FROM scan_result")
    service.failing = True
    await go_round(own)
    assert await own.value("SELECT count(*) FROM scan_result") == 0

    service.failing = False
    await go_round(own)
    await scanned(own, 1)


async def test_a_file_on_which_the_scanner_fails_counts_as_unscannable_at_last(
    own: Installation, service: HttpService
) -> None:
    service.poison = True
    await own.upload(secrets.token_bytes(100))

    async def was_tried() -> bool:
        return bool(await own.value("SELECT attempts > 0 AND next_attempt_ts < queued_ts + 60000 FROM scan_queue"))

    await wait_until(was_tried)
    await own.rows("UPDATE scan_queue SET attempts = 4, next_attempt_ts = 0")
    await scanned(own, 1)

    assert await own.value("SELECT verdict FROM scan_result") == "unscannable"


async def test_what_a_rebuild_restored_as_held_is_scanned(own: Installation) -> None:
    media_id = await own.upload(secrets.token_bytes(100))
    await scanned(own, 1)
    await own.rows(
        """INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
           SELECT server_name, media_id, 'quarantine', 'scanner:checker', '', 'scanner:checker', $1, 1 FROM media""",
        HELD_REASON,
    )
    assert await status(own, media_id) == 404
    await go_round(own)

    async def is_shown() -> bool:
        return await status(own, media_id) == 200

    await wait_until(is_shown)


async def test_results_on_what_is_stored_nowhere_are_forgotten(own: Installation) -> None:
    await own.upload(secrets.token_bytes(100))
    await scanned(own, 1)
    await own.rows(
        """INSERT INTO scan_result (scanner, sha256, verdict, signatures, hidden, scanned_ts)
           SELECT 'checker', sha256(n::text::bytea), 'clean', '1', false, 1 FROM generate_series(1, 50) n"""
    )
    await go_round(own)

    assert await own.value("SELECT count(*) FROM scan_result") == 1


async def test_what_waits_survives_a_killed_process(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, tmp_path: Path
) -> None:
    clamav = {"kind": "clamd", "address": f"unix:{wire.path}", "check_interval_ms": 100, "timeout_ms": 1000}
    document: dict[str, Any] = document_for(postgres, s3, scanners={"clamav": clamav})
    await wire.slow()
    async with serving(document, tmp_path) as server:
        clean, malware = await server.upload(b"clean file"), await server.upload(b"bad file" + EICAR)
        await server.kill()
    await wire.up()
    async with serving(document, tmp_path, migrated=True) as server:
        paths = [f"/_matrix/client/v1/media/download/media.example/{one}" for one in (clean, malware)]
        token = server.headers["Authorization"].removeprefix("Bearer ")

        async def is_shown() -> bool:
            return await server.status(paths[0], token=token) == 200

        await wait_until(is_shown)
        await server.shows('mediarepo_scans_total{outcome="infected",scanner="clamav"} 1.0')
        assert await server.status(paths[1], token=token) == 404


@asynccontextmanager
async def logging_server(postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, folder: Path) -> AsyncIterator[Any]:
    clamav = {"kind": "clamd", "address": f"unix:{wire.path}", "check_interval_ms": 100}
    document = document_for(postgres, s3, scanners={"clamav": clamav}, log={"format": "json"})
    async with serving(document, folder) as server:
        yield server


async def test_a_scanner_that_goes_and_comes_back_is_logged_once_each(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, wire: Wire, tmp_path: Path
) -> None:
    async with logging_server(postgres, s3, wire, tmp_path) as server:
        await server.shows('mediarepo_scanner_up{scanner="clamav"} 1.0')
        await wire.down()
        await server.logs("scanner_unavailable")
        await server.shows('mediarepo_scanner_up{scanner="clamav"} 0.0')
        await wire.up()
        await server.logs("scanner_recovered")

        assert [len(server.logged(f"scanner_{one}")) for one in ("unavailable", "recovered")] == [1, 1]


def test_nothing_of_scanners_is_imported_where_none_is_configured() -> None:
    program = (
        "import sys, mediarepo.app.repository, mediarepo.app.server;"
        "off = ('mediarepo.scanners', 'mediarepo.services.scanning');"
        "print([name for name in sys.modules if name.startswith(off)])"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    assert found.stdout == "[]\n"
