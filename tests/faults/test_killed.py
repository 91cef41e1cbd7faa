"""kill -9 in the middle of it all."""

import asyncio
import hashlib
import os
import secrets
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mediarepo.app.build_services import build_sweeps
from mediarepo.app.foundation import Foundation, open_foundation
from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.services.sweeps import SweepReport
from tests.pictures.drawn import jpeg
from tests.support.installation import SERVER_NAME, document_for
from tests.support.serving import Serving, serving

UPLOADS = 100
MIB = 1024 * 1024


def sizes() -> list[int]:
    """Mostly pictures, and every tenth one large enough for a multipart upload."""
    return [9 * MIB if n % 10 == 0 else 20_000 + n * 1000 for n in range(UPLOADS)]


async def upload_until_killed(server: Serving, acknowledged: dict[str, str], killed: asyncio.Event) -> None:
    """Upload a hundred files at once, and kill the server when a third of them is acknowledged."""

    async def one(size: int) -> None:
        data = secrets.token_bytes(size)
        try:
            media_id = await server.upload(data)
        except (aiohttp.ClientError, ConnectionError):
            return
        acknowledged[media_id] = hashlib.sha256(data).hexdigest()
        if len(acknowledged) == UPLOADS // 3 and not killed.is_set():
            killed.set()
            await server.kill()

    await asyncio.gather(*(one(size) for size in sizes()))


async def sweep(document: dict[str, Any], grace_ms: int) -> tuple[list[SweepReport], set[str], set[str], int]:
    """Sweep once; gives the report, the bucket's keys, the database's keys, and the open multipart uploads."""
    settings = Settings.model_validate({**document, "sweep": {"grace_ms": grace_ms}})
    async with open_foundation(settings) as foundation:
        reports = await build_sweeps(foundation).sweep()
        return reports, await bucket_keys(foundation), await known_keys(foundation), await open_multiparts(foundation)


async def bucket_keys(foundation: Foundation) -> set[str]:
    store = foundation.stores.by_name["main"]
    return {
        found.key
        async for found in store.list(f"{store.prefix}/")
        if not found.key.endswith("/installation") and "/journal/" not in found.key
    }


async def known_keys(foundation: Foundation) -> set[str]:
    async with foundation.database.connection() as connection:
        return {row[0] for row in await connection.fetch("SELECT object_key FROM blob")}


async def open_multiparts(foundation: Foundation) -> int:
    store = foundation.stores.by_name["main"]
    return len([found async for found in store.list_multiparts(f"{store.prefix}/")])


async def test_what_was_acknowledged_survives_and_one_sweep_removes_the_rest(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3)
    acknowledged: dict[str, str] = {}
    async with serving(document, tmp_path) as server:
        await upload_until_killed(server, acknowledged, asyncio.Event())
    assert UPLOADS // 3 <= len(acknowledged) < UPLOADS

    _, before, _, _ = await sweep(document, 86_400_000)
    await asyncio.sleep(1.5)
    (report,), bucket, known, multiparts = await sweep(document, 1000)

    assert report.stopped is None
    assert before >= bucket
    assert bucket == known
    assert multiparts == 0
    async with serving(document, tmp_path) as server:
        for media_id, digest in acknowledged.items():
            assert hashlib.sha256(await server.download(media_id)).hexdigest() == digest


async def test_a_sweep_with_the_production_grace_touches_no_upload_in_flight(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3)
    async with serving(document, tmp_path) as server:
        uploading = [asyncio.create_task(server.upload(secrets.token_bytes(size))) for size in sizes()]
        await asyncio.wait(uploading, return_when=asyncio.FIRST_COMPLETED)
        (report,), _, _, _ = await sweep(document, 86_400_000)
        media_ids = await asyncio.gather(*uploading)

        assert (report.unknown, report.multiparts, report.stopped) == (0, 0, None)
        assert len(set(media_ids)) == UPLOADS
        for media_id in media_ids[::10]:
            assert len(await server.download(media_id)) == 9 * MIB


async def test_workers_die_with_the_server(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> None:
    async with serving(document_for(postgres, s3), tmp_path) as server:
        media_id = await server.upload(jpeg(500, 500))
        thumbnail = f"{server.url}/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/{media_id}?width=32&height=32"
        async with server.session.get(thumbnail, headers=server.headers) as answer:
            assert answer.status == 200
        workers = server.pids()[1:]
        assert workers
        await server.kill()
        async with asyncio.timeout(20):
            while any(Path(f"/proc/{pid}").exists() for pid in workers):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_requests_finish(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, number: signal.Signals
) -> None:
    async with serving(document_for(postgres, s3, listen={"shutdown_timeout_ms": 20_000}), tmp_path) as server:
        halfway, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> Any:
            yield bytes(100_000)
            halfway.set()
            await go_on.wait()
            yield bytes(100_000)

        uploading = asyncio.create_task(server.upload(body(), expect100=True))
        await halfway.wait()
        server.process.send_signal(number)
        await server.refuses_connections()
        go_on.set()

        assert await uploading
        assert await server.process.wait() == 0


async def test_a_signal_to_the_workers_too_lets_a_thumbnail_be_finished(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    async with serving(document_for(postgres, s3, listen={"shutdown_timeout_ms": 20_000}), tmp_path) as server:
        thumbnail = f"{server.url}/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/"

        async def ask(media_id: str) -> int:
            url = f"{thumbnail}{media_id}?width=32&height=32"
            async with server.session.get(url, headers=server.headers) as answer:
                return answer.status

        first, second = [await server.upload(jpeg(size, size)) for size in (300, 301)]
        assert await ask(first) == 200
        (worker,) = server.pids()[1:]
        os.kill(worker, signal.SIGSTOP)
        options = asyncio.create_task(ask(second))
        await server.shows('mediarepo_admission_in_use{work="thumbnails"} 1.0')
        for pid in (worker, server.process.pid):
            os.kill(pid, signal.SIGTERM)
        await server.refuses_connections()
        os.kill(worker, signal.SIGCONT)

        assert await options == 200
        assert await server.process.wait() == 0
