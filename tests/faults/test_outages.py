"""S3, Postgres and clients going away in the middle."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.support.faulty_s3 import FaultyS3, Step, hang_up, lose_answer, reply, stall, truncate
from tests.support.installation import SERVER_NAME, TOKEN, Installation, installed, settings_for
from tests.support.ports import free_port
from tests.support.raw import RawConnection

MIB = 1024 * 1024
AUTH = f"Host: {SERVER_NAME}\r\nAuthorization: Bearer {TOKEN}\r\n"
SLOW_DOWN = reply(503, b"<Error><Code>SlowDown</Code></Error>")
FAILED_IN_200 = reply(200, b"<Error><Code>InternalError</Code><Message>no</Message></Error>")


@asynccontextmanager
async def behind_wire(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, **store: object
) -> AsyncIterator[tuple[Installation, FaultyS3]]:
    async with FaultyS3(s3.endpoint_url) as wire:
        settings = settings_for(
            postgres, s3, store={"endpoint_url": wire.endpoint_url, **store}, sweep={"grace_ms": 1000}
        )
        async with installed(settings) as running:
            wire.seen.clear()
            yield running, wire


async def test_s3_down_is_503_and_recovers_without_a_restart(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with behind_wire(postgres, s3) as (own, wire):
        media_id = await own.upload(b"before")
        etag = (await own.get(own.download_path(media_id))).headers["ETag"]
        wire._listener.close()

        answers = [
            await own.get(own.download_path(media_id)),
            await own.request("POST", "/_matrix/media/v3/upload", data=b"during"),
            await own.request("POST", "/_matrix/media/v3/upload", data=secrets.token_bytes(9 * MIB)),
            await own.get(own.thumbnail_path(media_id)),
        ]
        fresh = await own.get(own.download_path(media_id), headers={"If-None-Match": etag})
        ready = await own.get("/health/ready")
        wire._listener = await asyncio.start_server(wire._accept, "127.0.0.1", wire.port)

        for answer in answers:
            assert (answer.status, answer.json["errcode"]) == (503, "M_UNKNOWN")
            assert answer.headers["Retry-After"]
        assert fresh.status == 304
        assert ready.status == 503
        assert "store main" in ready.json["problems"]
        assert (await own.get(own.download_path(media_id))).body == b"before"
        assert (await own.get("/health/ready")).status == 200
        assert await own.value("SELECT state FROM media") == "ready"
        assert await own.value("SELECT count(*) FROM thumbnail_failure") == 0


async def test_a_server_that_starts_before_s3_and_postgres_serves_once_they_are_there(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    settings = settings_for(postgres, s3)
    async with installed(settings, migrate=False) as early:
        not_yet = await early.get("/_matrix/client/v1/media/download/media.example/abc")
        ready = await early.get("/health/ready")
        await upgrade(settings.database)

        assert not_yet.status == 503
        assert "mediarepo migrate" in ready.json["problems"]["database"]
        assert (await early.get("/health/live")).status == 200
        assert await early.upload(b"now")
        assert (await early.get("/health/ready")).status == 200


async def test_a_database_that_is_not_there_is_503(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    settings = settings_for(postgres, s3, database={"url": url})
    async with installed(settings, migrate=False) as lonely:
        for path in (lonely.download_path("abc"), lonely.thumbnail_path("abc")):
            answer = await lonely.get(path)
            assert (answer.status, answer.json["errcode"]) == (503, "M_UNKNOWN")
            assert answer.headers["Retry-After"]
        assert (await lonely.request("POST", "/_matrix/media/v3/upload", data=b"x")).status == 503
        assert (await lonely.get("/health/live")).status == 200


async def test_connections_that_postgres_ended_are_replaced(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3)) as own:
        media_id = await own.upload(b"x")
        await asyncio.gather(*(own.get(own.download_path(media_id)) for _ in range(20)))
        await own.rows(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'mediarepo' AND pid <> pg_backend_pid()"""
        )
        await asyncio.sleep(0.1)

        assert (await own.get(own.download_path(media_id))).body == b"x"
        assert await own.upload(b"y")


async def test_connections_that_postgres_ends_in_the_middle_are_an_outage(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with installed(settings_for(postgres, s3, database={"pool_size": 4})) as own:
        statuses = set()
        other = await asyncpg.connect(postgres.dsn)
        for round_number in range(40):
            uploads = [
                asyncio.create_task(own.request("POST", "/_matrix/media/v3/upload", data=secrets.token_bytes(20)))
                for _ in range(10)
            ]
            await asyncio.sleep(0.004 + 0.001 * (round_number % 10))
            await other.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mediarepo'"
            )
            statuses |= {answer.status for answer in await asyncio.gather(*uploads)}
        await other.close()

        assert statuses <= {200, 503}
        assert own.repository.memory.used == 0
        assert await own.upload(b"afterwards")


async def test_a_schema_for_newer_code_is_503_and_names_the_way_out(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    settings = settings_for(postgres, s3)
    async with installed(settings) as own:
        media_id = await own.upload(b"x")
        await own.rows("UPDATE schema_meta SET version = 99, min_compatible = 1 RETURNING 1")
        async with installed(settings, migrate=False) as older:
            assert (await older.get(older.download_path(media_id))).body == b"x"
        await own.rows("UPDATE schema_meta SET min_compatible = 99 RETURNING 1")
        async with installed(settings, migrate=False) as too_old:
            answer = await too_old.get(too_old.download_path(media_id))
            problems = (await too_old.get("/health/ready")).json["problems"]

        assert answer.status == 503
        assert "install a newer mediarepo" in problems["database"]


@pytest.mark.parametrize("trouble", [lose_answer, FAILED_IN_200, SLOW_DOWN])
async def test_trouble_while_completing_loses_and_leaks_nothing(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, trouble: Step
) -> None:
    data = secrets.token_bytes(9 * MIB)
    async with behind_wire(postgres, s3) as (own, wire):
        wire.plan_for("POST", "uploadId=", trouble)

        media_id = await own.upload(data)

        assert (await own.get(own.download_path(media_id))).body == data
        assert await own.object_keys() == {await own.value("SELECT object_key FROM blob")}
        assert await own.value("SELECT count(*) FROM multipart_intent") == 0


async def test_an_upload_whose_put_is_lost_is_tried_again(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with behind_wire(postgres, s3) as (own, wire):
        wire.plan(lose_answer, SLOW_DOWN)

        media_id = await own.upload(b"persistent")

        assert (await own.get(own.download_path(media_id))).body == b"persistent"


async def test_a_download_that_s3_breaks_off_goes_on_when_it_is_back(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    content = secrets.token_bytes(1_000_000)
    async with behind_wire(postgres, s3) as (own, wire):
        media_id = await own.upload(content)
        wire.plan(truncate(500_000), hang_up, truncate(100_000))

        assert (await own.get(own.download_path(media_id))).body == content


async def test_a_download_that_s3_breaks_off_for_good_ends_the_connection(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with behind_wire(postgres, s3, retry_budget=5) as (own, wire):
        media_id = await own.upload(secrets.token_bytes(1_000_000))
        wire.plan(truncate(500_000), *[reply(503)] * 20)
        request = f"GET {own.download_path(media_id)} HTTP/1.1\r\n{AUTH}\r\n"
        async with RawConnection.open(own.url) as connection:
            await connection.send(request.encode())
            head = await connection.reader.readuntil(b"\r\n\r\n")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.reader.readexactly(1_000_000)

        assert b"Content-Length: 1000000" in head
        assert (await own.get("/health/live")).status == 200
        assert await own.value("SELECT state FROM media") == "ready"


async def test_uploads_while_s3_fails_for_a_moment_end_and_give_everything_back(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with behind_wire(postgres, s3) as (own, wire):
        contents = [secrets.token_bytes(20 * MIB) for _ in range(8)]
        wire.plan(*[reply(503, b"<Error><Code>SlowDown</Code></Error>", headers="Retry-After: 1\r\n")] * 24)
        media_ids = await asyncio.gather(*(own.upload(content) for content in contents))

        assert (await own.get(own.download_path(media_ids[0]))).body == contents[0]
        assert own.repository.memory.used == 0
        assert own.store.read_connections.in_use == 0


async def test_uploads_while_s3_is_dead_are_refused_soon_and_give_everything_back(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with behind_wire(postgres, s3, retry_budget=10) as (own, wire):
        kept = await own.upload(b"kept")
        asked = len(wire.seen)
        wire.plan(*[SLOW_DOWN] * 1_000)
        body = secrets.token_bytes(20 * MIB)
        answers = await asyncio.gather(
            *(own.request("POST", "/_matrix/media/v3/upload", data=body) for _ in range(8)),
            *(own.get(own.download_path(kept)) for _ in range(8)),
        )

        assert {answer.status for answer in answers} == {503}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
        assert len(wire.seen) - asked <= len(answers) + 10
        assert own.repository.memory.used == 0
        assert own.store.read_connections.in_use == 0
        wire.clear_plan()
        assert (await own.get(own.download_path(await own.upload(body)))).body == body


async def test_a_client_that_leaves_a_download_ends_the_request_to_s3_quietly(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, caplog: pytest.LogCaptureFixture
) -> None:
    async with behind_wire(postgres, s3) as (own, wire):
        media_id = await own.upload(secrets.token_bytes(20_000_000))
        wire.plan(stall(19_000_000))
        request = f"GET {own.download_path(media_id)} HTTP/1.1\r\n{AUTH}\r\n"
        async with RawConnection.open(own.url) as connection:
            await connection.send(request.encode())
            await connection.reader.readuntil(b"\r\n\r\n")
            connection.abort()
        async with asyncio.timeout(20):
            while b'status="499"' not in (await own.get("/metrics")).body:
                await asyncio.sleep(0.05)

        assert "Error" not in caplog.text


async def test_a_client_that_leaves_an_upload_leaves_nothing(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with behind_wire(postgres, s3) as (own, _):
        head = f"POST /_matrix/media/v3/upload HTTP/1.1\r\n{AUTH}"
        async with RawConnection.open(own.url) as connection:
            await connection.send(f"{head}Content-Length: {30 * MIB}\r\n\r\n".encode() + secrets.token_bytes(17 * MIB))
            while not await own.value("SELECT count(*) FROM multipart_intent WHERE upload_id IS NOT NULL"):
                await asyncio.sleep(0.01)
            connection.abort()
        while await own.value("SELECT count(*) FROM multipart_intent"):
            await asyncio.sleep(0.01)

        assert await own.object_keys() == set()
        assert [found async for found in own.store.list_multiparts(f"{own.store.prefix}/")] == []
        assert own.repository.memory.used == 0
        assert await own.value("SELECT count(*) FROM media") == 0


async def test_a_database_that_fails_after_the_put_leaves_an_object_that_the_sweep_removes(
    postgres: EmbeddedPostgres, s3: EmbeddedS3
) -> None:
    async with behind_wire(postgres, s3) as (own, _):
        await own.rows(
            """CREATE FUNCTION go_away() RETURNS trigger LANGUAGE plpgsql
               AS $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = 'cannot_connect_now'; END $$"""
        )
        await own.rows("CREATE TRIGGER away BEFORE INSERT ON media FOR EACH ROW EXECUTE FUNCTION go_away()")
        for size in (1000, 9 * MIB):
            answer = await own.request("POST", "/_matrix/media/v3/upload", data=secrets.token_bytes(size))
            assert answer.status == 503
        await own.rows("DROP TRIGGER away ON media")
        assert len(await own.object_keys()) == 2
        await asyncio.sleep(1.1)
        await own.repository.sweeps.sweep()

        assert await own.object_keys() == set()
        assert await own.value("SELECT count(*) FROM multipart_intent") == 0
