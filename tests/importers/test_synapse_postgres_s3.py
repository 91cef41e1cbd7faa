import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mediarepo.importers.errors import BytesVanishedError, SourceError, SourceUnavailableError
from mediarepo.importers.readers.database_address import postgres_address
from mediarepo.importers.readers.source_bucket import Bucket, BucketByteSource
from mediarepo.importers.readers.source_database import Selection, render_select
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.importers.readers.source_postgres import PostgresDialect
from mediarepo.importers.synapse.config import BucketProvider, SynapseConfig
from mediarepo.importers.synapse.source import SynapseSource
from mediarepo.model.import_source import (
    FileBytes,
    MediaKind,
    ObjectBytes,
    ResolutionState,
    SourceItem,
    SourceMedia,
    UnclaimedBytes,
)

FIXTURE = Path(__file__).parents[1] / "fixtures/imports/synapse-pg-s3"
OWN, OTHER = "localhost:18458", "localhost:18448"
PREFIX = "matrix/media/"


def config_of(database: dict[str, Any], bucket: Any, folder: Path, **changes: Any) -> SynapseConfig:
    return SynapseConfig(
        server_name=OWN,
        database=postgres_address(database),
        media_store_path=folder,
        providers=(BucketProvider(bucket.address, bucket.prefix + changes.pop("prefix", PREFIX)),),
        **changes,
    )


@pytest.fixture
async def source(synapse_database: dict[str, Any], source_bucket: Any) -> AsyncIterator[SynapseSource]:
    await source_bucket.fill(FIXTURE / "bucket")
    config = config_of(synapse_database, source_bucket, FIXTURE / "media_store")
    async with SynapseSource(config) as source:
        yield source


async def located(source: SynapseSource) -> tuple[dict[str, SourceItem], list[UnclaimedBytes]]:
    found, orphans = {}, []
    async for met in source.located():
        if isinstance(met, UnclaimedBytes):
            orphans.append(met)
        else:
            found[met.media.media_id] = met
    return found, orphans


def tail(orphan: UnclaimedBytes) -> str:
    found = orphan.found
    return str(found.path if isinstance(found, FileBytes) else getattr(found, "object_key", ""))[-26:]


async def test_every_row_is_read_in_the_order_of_keys(source: SynapseSource) -> None:
    media = [one async for one in source.media()]

    assert len(media) == 21
    assert [one.key.order for one in media] == sorted(one.key.order for one in media)
    assert [one.server_name for one in media[:3]] == [OTHER] * 3
    for number, one in enumerate(media):
        assert [other async for other in source.media(one.key)] == media[number + 1 :]


async def test_a_remote_row_is_read_with_all_it_says(source: SynapseSource) -> None:
    assert await source.lookup(OTHER, "nNJBzwEZTouPRcvrRmSGIRps") == SourceMedia(
        server_name=OTHER,
        media_id="nNJBzwEZTouPRcvrRmSGIRps",
        kind=MediaKind.REMOTE,
        content_type="text/plain; charset=utf-8",
        size_bytes=14,
        created_ts=1795400897268,
        upload_name='资料 — n°1 "quoted";\u202e.txt',
        last_access_ts=1795400920137,
        quarantined_by="@alice:localhost:18458",
        authenticated=True,
        sha256=bytes.fromhex("3828eeee974aa7486e7acc258e5c73a0115e168444d6688deb8d5d1306d1f57d"),
        filesystem_id="MuPsSKSgfAICQRfFnTeZzWCR",
    )


async def test_rows_meet_their_objects_and_what_is_lost_or_left_over_is_told(
    source: SynapseSource, manifest: dict[str, dict[str, Any]]
) -> None:
    found, orphans = await located(source)

    states = {name: one.resolution.state for name, one in found.items() if one.resolution.state != "found"}
    assert len(found) == 21
    assert states == {
        "wmIlVMlJhOeeYGtzIrpSCKLH": ResolutionState.PENDING,
        "TOSprLDjGszqGmOkZodvQTIe": ResolutionState.MISSING,
    }
    assert {tail(orphan) for orphan in orphans} == {
        "HC/MP/RePSlrwbTNioTTxmaiqF",
        "nM/WF/fobNjeEcYKkaVGvYoakn",
        "fe/Qx/VLCFPMzfYTRPBJmbuWRA",
        "Ak/PP/qDbZoYHKxAmSYYtDMsfS",
    }
    for one in found.values():
        bytes_found = one.resolution.found
        if isinstance(bytes_found, ObjectBytes):
            listed = manifest[bytes_found.object_key[bytes_found.object_key.index(PREFIX) :]]
            assert (bytes_found.size_bytes, f'"{bytes_found.etag}"') == (listed["Size"], listed["ETag"])


async def test_all_found_bytes_have_the_hashes_of_their_rows(source: SynapseSource) -> None:
    found, _ = await located(source)

    for one in found.values():
        if one.resolution.found is not None:
            data = b"".join([piece async for piece in source.open(one.resolution.found)])
            assert hashlib.sha256(data).digest() == one.media.sha256


async def test_few_lists_are_needed_where_everything_is_there(source: SynapseSource) -> None:
    await located(source)

    # three walks, a second look at the lost row
    assert source.lists == 4


async def test_preflight_counts_and_finds_no_problem(source: SynapseSource) -> None:
    findings = await source.preflight()

    assert findings.problems == []
    assert findings.counts == {"remote": 3, "url_cache": 2, "local": 16, "pending": 1, "quarantined": 3}
    assert findings.bytes["remote"] == 14 + 3589 + 320


async def test_thumbnails_of_other_servers_lie_in_the_bucket(source: SynapseSource) -> None:
    media = await source.lookup(OTHER, "pfyNaslSWCQUfnrAUzlpAkMl")
    assert media is not None

    thumbnails = [one async for one in source.thumbnails(media)]
    states = {(one.width, one.height): (await source.locate_thumbnail(one)).state for one in thumbnails}

    assert states == {
        (32, 32): ResolutionState.FOUND,
        (96, 96): ResolutionState.FOUND,
        (320, 224): ResolutionState.FOUND,
        (640, 448): ResolutionState.MISSING,  # the fixture was made smaller
        (800, 560): ResolutionState.MISSING,
    }


async def test_a_truncated_file_gives_way_to_the_whole_object(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    await source_bucket.fill(FIXTURE / "bucket")
    short = tmp_path / "local_content/eJ/ER/nIQCfGLJxuiEszggZjvN"
    short.parent.mkdir(parents=True)
    short.write_bytes(b"short")

    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path)) as source:
        found, _ = await located(source)
        resolution = found["eJERnIQCfGLJxuiEszggZjvN"].resolution

        assert isinstance(resolution.found, ObjectBytes)
        assert len(resolution.candidates) == 2


async def test_bytes_of_another_size_everywhere_are_a_mismatch(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    await source_bucket.fill(FIXTURE / "bucket")
    await source_bucket.put("matrix/media/local_content/eJ/ER/nIQCfGLJxuiEszggZjvN", b"9 bytes!!")

    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path)) as source:
        found, orphans = await located(source)

    resolution = found["eJERnIQCfGLJxuiEszggZjvN"].resolution
    assert resolution.state is ResolutionState.MISMATCH
    assert "3589" in resolution.words
    assert "9 on" in resolution.words
    assert len(orphans) == 2


async def test_a_prefix_is_taken_as_it_stands(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    await source_bucket.fill(FIXTURE / "bucket/matrix/media", under="media")

    config = config_of(synapse_database, source_bucket, tmp_path, prefix="media")
    async with SynapseSource(config) as source:
        found, _ = await located(source)

    assert sum(one.resolution.state is ResolutionState.FOUND for one in found.values()) == 17


async def test_servers_whose_names_begin_alike_are_told_apart(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    names = ["example.org", "example.org.au", "example.org-x", "example.org:8448", "[::1]:8448", "EXAMPLE.org"]
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute("DELETE FROM remote_media_cache")
    await connection.execute("DELETE FROM quarantined_media_changes")
    for name in names:
        for number in range(3):
            fs_id = f"aB-{number}_cdefghijk"
            await connection.execute(
                "INSERT INTO remote_media_cache (media_origin, media_id, media_length, filesystem_id)"
                " VALUES ($1, $2, $3, $4)",
                name,
                f"id{number}",
                len(name),
                fs_id,
            )
            await source_bucket.put(f"remote_content/{name}/aB/-{number}/_cdefghijk", name.encode())
    await source_bucket.put("remote_content/example.org/zz/zz/orphan", b"x")
    await connection.close()

    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path, prefix="")) as source:
        states = []
        orphans = []
        async for met in source.located():
            if isinstance(met, UnclaimedBytes):
                orphans.append(met.found)
            elif met.media.kind is MediaKind.REMOTE:
                states.append((met.media.server_name, met.resolution.state))

    assert sorted(states) == sorted((name, ResolutionState.FOUND) for name in names for _ in range(3))
    assert all(isinstance(orphan, ObjectBytes) and "orphan" in orphan.object_key for orphan in orphans)


async def test_own_media_among_those_of_others_are_left_out_and_told(
    synapse_database: dict[str, Any], source_bucket: Any
) -> None:
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute(
        "INSERT INTO remote_media_cache (media_origin, media_id, media_length, filesystem_id) VALUES ($1, 'x', 1, 'y')",
        OWN,
    )
    await connection.close()
    await source_bucket.fill(FIXTURE / "bucket")

    config = config_of(synapse_database, source_bucket, FIXTURE / "media_store")
    async with SynapseSource(config) as source:
        findings = await source.preflight()
        media = [one async for one in source.media()]
        found, _ = await located(source)

    assert any("claim to be of our own" in warning for warning in findings.warnings)
    assert len(media) == len(found) == 21


async def test_a_lost_connection_costs_no_row_and_doubles_none(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute(
        "INSERT INTO local_media_repository (media_id, media_length, created_ts)"
        " SELECT 'generated' || lpad(n::text, 8, '0'), 1, 1 FROM generate_series(1, 25000) AS n"
    )
    seen = []
    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path)) as source:
        async for media in source.media():
            seen.append(media.media_id)
            if len(seen) in {2500, 14_000}:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
    rows = await connection.fetch("SELECT media_id FROM local_media_repository")
    await connection.close()

    assert len(seen) == 25_021
    assert set(seen) >= {row["media_id"] for row in rows}
    assert len(set(seen)) == len(seen)


async def test_a_transaction_that_is_ended_for_being_slow_costs_no_row(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute(
        "INSERT INTO remote_media_cache (media_origin, media_id, media_length, filesystem_id)"
        " SELECT 'generated' || n % 7, 'id' || n, 1, 'abcdefg' || n FROM generate_series(1, 5000) AS n"
    )
    name = synapse_database["database"]
    await connection.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '400ms'")
    await connection.close()
    config = config_of(synapse_database, source_bucket, tmp_path)

    async with SynapseSource(config) as source:
        keys = []
        async for media in source.media():
            keys.append(media.key)
            if len(keys) in {10, 3000}:
                await asyncio.sleep(1.2)  # the consumer is slow, as one that copies is
        met = []
        async for one in source.located():
            if isinstance(one, SourceItem):
                met.append(one.media.key)
                if len(met) == 100:
                    await asyncio.sleep(1.2)

    assert len(keys) == len(set(keys)) == 5021
    assert [key.order for key in keys] == sorted(key.order for key in keys)
    assert sorted(met) == sorted(keys)


async def test_a_walk_that_is_left_early_leaves_no_transaction(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path)) as source:
        for walk in (source.media(), source.located()):
            async with aclosing(walk):
                await anext(walk)
        connection = await asyncpg.connect(**synapse_database)
        left = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        )
        await connection.close()

    assert left == 0


def test_postgres_is_asked_to_compare_bytes_whatever_its_collation() -> None:
    selection = Selection("table_name", {"a": "a"}, ("a", "b"), "c = {0}", ("x",))

    assert render_select(selection, PostgresDialect(), after=("y", "z")) == (
        "SELECT a AS a, a AS key_0, b AS key_1 FROM table_name WHERE (c = CAST($1 AS TEXT))"
        " AND a IS NOT NULL AND b IS NOT NULL"
        ' AND ((a) COLLATE "C", (b) COLLATE "C") > (CAST($2 AS TEXT), CAST($3 AS TEXT))'
        ' ORDER BY (a) COLLATE "C", (b) COLLATE "C"'
    )


async def test_old_schemas_lack_columns_and_are_read_all_the_same(
    synapse_database: dict[str, Any], source_bucket: Any
) -> None:
    connection = await asyncpg.connect(**synapse_database)
    for column in ("sha256", "authenticated", "safe_from_quarantine"):
        await connection.execute(f"ALTER TABLE local_media_repository DROP COLUMN {column}")
    for column in ("sha256", "authenticated"):
        await connection.execute(f"ALTER TABLE remote_media_cache DROP COLUMN {column}")
    await connection.close()
    await source_bucket.fill(FIXTURE / "bucket")

    config = config_of(synapse_database, source_bucket, FIXTURE / "media_store")
    async with SynapseSource(config) as source:
        media = [one async for one in source.media()]
        findings = await source.preflight()

    assert len(media) == 21
    assert not any(one.authenticated or one.protected or one.sha256 for one in media)
    assert findings.problems == []
    assert any("too old to know sha256 or authenticated" in fact for fact in findings.facts)


async def test_a_user_without_grants_is_told_what_to_grant(
    synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(**synapse_database)
    await connection.execute("CREATE ROLE reader LOGIN")
    await connection.execute("GRANT SELECT ON local_media_repository, schema_version TO reader")
    config = config_of({**synapse_database, "user": "reader"}, source_bucket, tmp_path)
    try:
        async with SynapseSource(config) as source:
            findings = await source.preflight()
            media = [one async for one in source.media()]
    finally:
        await connection.execute("DROP OWNED BY reader; DROP ROLE reader")
        await connection.close()

    assert len([problem for problem in findings.problems if "GRANT SELECT" in problem]) == 3
    assert len(media) == 18


async def test_nothing_can_be_written(synapse_database: dict[str, Any], source_bucket: Any, tmp_path: Path) -> None:
    async with SynapseSource(config_of(synapse_database, source_bucket, tmp_path)) as source:
        walk = source.media()
        await anext(walk)
        connection = await asyncpg.connect(**synapse_database)
        modes = await connection.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        await connection.execute("DELETE FROM local_media_repository")
        await connection.close()
        rest = [one async for one in walk]

    assert modes
    assert len(rest) < 20  # the rows of other servers came from before, the local ones are asked for later


async def test_a_database_that_is_not_there_is_a_problem_in_words(source_bucket: Any, tmp_path: Path) -> None:
    database = {"host": str(tmp_path), "user": "nobody", "database": "none"}
    async with SynapseSource(config_of(database, source_bucket, tmp_path)) as source:
        findings = await source.preflight()

        with pytest.raises(SourceUnavailableError):
            await source.lookup(OTHER, "x")

    assert any("cannot be read" in problem for problem in findings.problems)


async def test_a_wrong_password_and_a_missing_database_are_problems_in_words(
    new_database: Callable[..., Any], source_bucket: Any, tmp_path: Path
) -> None:
    database = {**await new_database(), "database": "no_such_database"}
    async with SynapseSource(config_of(database, source_bucket, tmp_path)) as source:
        findings = await source.preflight()

    assert any("no_such_database" in problem for problem in findings.problems)


async def test_an_outage_of_the_bucket_is_never_a_missing_object(
    source: SynapseSource, source_bucket: Any, s3_wire: Any
) -> None:
    address = source_bucket.address.__class__(
        **{
            name: getattr(source_bucket.address, name)
            for name in ("bucket", "region", "access_key_id", "secret_access_key")
        },
        endpoint_url=s3_wire.endpoint_url,
    )
    await s3_wire.stop()
    byte_source = BucketByteSource("bucket", Bucket(address), prefix=f"{source_bucket.prefix}{PREFIX}")
    media = await source.lookup(OWN, "eJERnIQCfGLJxuiEszggZjvN")
    assert media is not None

    async with SynapseSource(source.config, byte_sources=[byte_source]) as blind:
        resolution = await blind.locate(media)
        findings = await blind.preflight()
        with pytest.raises(SourceUnavailableError):
            await located(blind)

    assert resolution.state is ResolutionState.UNREADABLE
    assert any("cannot be reached" in problem for problem in findings.problems)


async def test_an_object_that_changed_since_is_not_given_out(source: SynapseSource, source_bucket: Any) -> None:
    media = await source.lookup(OWN, "vaXkhYHSztbybFxNJNwulpCO")
    assert media is not None
    resolution = await source.locate(media)
    assert resolution.found is not None
    key = "matrix/media/local_content/va/Xk/hYHSztbybFxNJNwulpCO"

    await source_bucket.put(key, b"other content, 17")
    with pytest.raises(BytesVanishedError, match="another object"):
        [piece async for piece in source.open(resolution.found)]

    await source_bucket.store.delete([source_bucket.prefix + key])
    with pytest.raises(BytesVanishedError, match="gone"):
        [piece async for piece in source.open(resolution.found)]


async def test_unknown_shelves_are_refused(source: SynapseSource) -> None:
    with pytest.raises(SourceError, match="no byte source"):
        [piece async for piece in source.open(FileBytes("nowhere", Path("/etc/passwd"), 1))]


async def test_two_walks_and_lookups_go_on_at_once(source: SynapseSource) -> None:
    async def count() -> int:
        return len([await source.lookup(*one.key) async for one in source.media()])

    assert set(await asyncio.gather(count(), count(), count(), count())) == {21}


def test_shelves_follow_the_order_of_the_configuration(source: SynapseSource, source_bucket: Any) -> None:
    first, second = source.byte_sources

    assert source.bucket_addresses == {"provider 1": source_bucket.address}
    assert source.notes == []

    assert isinstance(first, FolderByteSource)
    assert isinstance(second, BucketByteSource)
