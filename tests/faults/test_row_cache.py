"""Rows of media are served from memory only while no process can have changed them."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web

from mediarepo.db.cache_lease import LEASE_S, CacheLease, boot_s
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.services.access import MediaCache
from mediarepo.web.admin.access import SETTLING
from mediarepo.web.admin.api.endpoint_table import add_api_routes
from mediarepo.web.routes import add_federation_routes, add_matrix_routes, add_synapse_admin_routes
from tests.pictures.drawn import corners, encoded
from tests.support.installation import Installation, document_for, installed, settings_for
from tests.support.serving import serving

ROUNDS = 25
ADMIN = "/_mediarepo/admin/v1"
OPERATOR = "the-operators-token"


@pytest.fixture
async def pair(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[tuple[Installation, Installation]]:
    """Two servers over one database."""
    settings = settings_for(postgres, s3, admin={"token": OPERATOR})
    async with installed(settings) as one, installed(settings, migrate=False) as two:
        yield one, two


def cache_of(installation: Installation) -> MediaCache:
    return installation.repository.access._media


async def kept(installation: Installation, path: str) -> None:
    """Ask until the row is served from memory."""
    cache = cache_of(installation)
    hits: list[None] = []
    count, cache._on_hit = cache._on_hit, lambda: hits.append(None)
    async with asyncio.timeout(60):
        while not hits:
            assert (await installation.get(path)).status == 200
    cache._on_hit = count


async def act(installation: Installation, action: str, media_id: str) -> None:
    path = f"{ADMIN}/media/{installation.server_name}/{media_id}/{action}"
    answer = await installation.request("POST", path, token=OPERATOR, data=b'{"reason": "a test"}')
    assert answer.status == 200, answer


async def test_what_an_admin_hides_at_one_process_is_hidden_at_the_next_request_to_another(
    pair: tuple[Installation, Installation],
) -> None:
    one, two = pair
    for _ in range(ROUNDS):
        media_id = await one.upload(secrets.token_bytes(64))
        path = one.download_path(media_id)
        await kept(one, path)
        await kept(two, path)

        await act(one, "quarantine", media_id)

        assert [(await server.get(path)).status for server in (two, one)] == [404, 404]
        await act(two, "unquarantine", media_id)
        assert [(await server.get(path)).status for server in (one, two)] == [200, 200]


async def test_a_thumbnail_is_served_from_memory_and_hidden_with_its_media(
    pair: tuple[Installation, Installation],
) -> None:
    one, two = pair
    media_id = await one.upload(encoded(corners(60, 40), "PNG"))
    path = one.thumbnail_path(media_id)
    await kept(two, path)
    await act(one, "quarantine", media_id)

    assert (await two.get(path)).status == 404


CHANGES = {
    "hidden by a mark": """INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, created_ts)
        SELECT server_name, media_id, 'quarantine', '', '', 'somebody', 1 FROM media WHERE media_id = $1""",
    "hidden by its hash": """INSERT INTO quarantined_hash (sha256, quarantined_by, created_ts, size_bytes)
        SELECT sha256, 'somebody', 1, size_bytes FROM blob JOIN media USING (blob_id) WHERE media_id = $1""",
    "hidden by its content": """INSERT INTO quarantined_blob (blob_id, quarantined_by, created_ts)
        SELECT blob_id, 'somebody', 1 FROM media WHERE media_id = $1""",
    "hidden by its server": """INSERT INTO quarantined_server_name (server_name, quarantined_by, created_ts)
        SELECT server_name, 'somebody', 1 FROM media WHERE media_id = $1""",
    "in the trash": "UPDATE media SET state = 'tombstone' WHERE media_id = $1",
    "deleted": "DELETE FROM media WHERE media_id = $1",
    "lost": """UPDATE blob SET missing_ts = 1 FROM media WHERE media.blob_id = blob.blob_id AND media_id = $1""",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_stranger_s_statement_ends_it_too(
    change: str, pair: tuple[Installation, Installation], postgres: EmbeddedPostgres
) -> None:
    one, _ = pair
    media_id = await one.upload(secrets.token_bytes(64))
    path = one.download_path(media_id)
    await kept(one, path)
    await kept(one, path)
    epoch = one.repository.foundation.cache_lease.epoch

    connection = await asyncpg.connect(postgres.dsn, server_settings={"search_path": one.settings.database.db_schema})
    await connection.execute(CHANGES[change].replace("$1", f"'{media_id}'"))
    await connection.close()

    async with asyncio.timeout(60):
        while one.repository.foundation.cache_lease.epoch == epoch:
            await asyncio.sleep(0.001)
    assert (await one.get(path)).status == 404


async def test_uploads_leave_the_memory_alone(pair: tuple[Installation, Installation]) -> None:
    one, two = pair
    await kept(one, one.download_path(await one.upload(b"first")))
    epoch = one.repository.foundation.cache_lease.epoch
    for server in (one, two):
        await server.upload(secrets.token_bytes(32))
        await server.upload(b"first")
    await one.value("SELECT pg_notify('mediarepo_rows_' || md5(current_schema()), 'echo:nobody')")  # comes after theirs

    async with asyncio.timeout(60):
        while one.repository.foundation.cache_lease.epoch == epoch:
            await asyncio.sleep(0.001)
    assert one.repository.foundation.cache_lease.epoch == epoch + 1


async def test_a_cut_listener_ends_the_lease_and_a_new_one_begins_another(
    pair: tuple[Installation, Installation],
) -> None:
    one, _ = pair
    path = one.download_path(await one.upload(b"content"))
    await kept(one, path)
    lease = one.repository.foundation.cache_lease
    epoch = lease.epoch
    cut = await one.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mediarepo listener'"
    )
    assert cut > 0
    async with asyncio.timeout(60):
        while lease.epoch == epoch:
            await asyncio.sleep(0.001)
    await kept(one, path)


async def test_a_lease_ends_by_the_clock_alone(pair: tuple[Installation, Installation]) -> None:
    one, _ = pair
    path = one.download_path(await one.upload(b"content"))
    await kept(one, path)
    lease = one.repository.foundation.cache_lease
    lease._clock = lambda: boot_s() + LEASE_S

    assert not lease.holds


async def test_whoever_does_not_answer_is_waited_for_as_long_as_its_lease(
    pair: tuple[Installation, Installation],
) -> None:
    one, _ = pair
    await one.rows("INSERT INTO cache_lease (process, dropped) VALUES ('a process that was just cut off', 0)")
    media_id = await one.upload(b"content")
    began = boot_s()
    await act(one, "quarantine", media_id)

    assert boot_s() - began >= LEASE_S


async def test_what_killed_processes_left_is_not_waited_for(pair: tuple[Installation, Installation]) -> None:
    one, _ = pair
    await one.rows(
        """INSERT INTO cache_lease (process, renewed_at, dropped)
           VALUES ('killed', clock_timestamp() - interval '1 minute', 0)"""
    )
    table = one.repository.foundation.invalidation.table

    assert await table.count_others(one.repository.foundation.cache_lease.process) <= 1


async def test_a_process_that_ends_takes_its_lease_along(pair: tuple[Installation, Installation]) -> None:
    one, _ = pair
    async with installed(one.settings, migrate=False) as third:
        await kept(third, third.download_path(await third.upload(b"content")))
        process = third.repository.foundation.cache_lease.process
        assert await one.value("SELECT count(*) FROM cache_lease WHERE process = $1", process) == 1

    assert await one.value("SELECT count(*) FROM cache_lease WHERE process = $1", process) == 0


async def test_a_process_that_was_stopped_shows_nothing_old_when_it_goes_on(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    document = document_for(postgres, s3, admin={"token": OPERATOR})
    async with serving(document, tmp_path) as one, serving(document, tmp_path, migrated=True) as two:
        for _ in range(5):
            media_id = await one.upload(secrets.token_bytes(64))
            path = f"/_matrix/client/v1/media/download/media.example/{media_id}"
            for _ in range(20):
                assert await two.status(path) == 200
            two.process.send_signal(signal.SIGSTOP)
            asking = asyncio.create_task(two.status(path))  # it has to wait
            hide = f"{one.url}{ADMIN}/media/media.example/{media_id}/quarantine"
            headers = {"Host": "media.example", "Authorization": f"Bearer {OPERATOR}"}
            async with one.session.post(hide, json={"reason": "a test"}, headers=headers) as answer:
                assert answer.status == 200
            asking.cancel()
            two.process.send_signal(signal.SIGCONT)

            assert await two.status(path) == 404


def test_every_change_by_an_admin_waits_for_all_processes() -> None:
    app, users = web.Application(), ("/_matrix/",)
    for add_routes in (add_matrix_routes, add_federation_routes, add_synapse_admin_routes, add_api_routes):
        add_routes(app)
    changing = {
        (route.method, route.resource.canonical): getattr(route.handler, SETTLING, False)
        for route in app.router.routes()
        if route.method not in {"GET", "HEAD", "OPTIONS"} and route.resource is not None
    }
    admins = {route: waits for route, waits in changing.items() if not route[1].startswith(users)}

    assert len(admins) > 20
    assert [route for route, waits in admins.items() if not waits] == []


def test_a_lease_that_nobody_keeps_never_holds() -> None:
    lease = CacheLease()

    assert not lease.holds
    lease.drop()
    assert not lease.holds
