"""A database restored from a backup, or empty, over a bucket that is newer."""

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.app.build_services import build_repairs
from mediarepo.app.foundation import now_ms
from mediarepo.config.settings import Settings
from mediarepo.db.migrations import upgrade
from mediarepo.db.sweep import UploadIntents
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.errors import UnavailableError
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.services.fsck import FsckLevel, FsckProgress, RepairRefusedError
from tests.support.backups import OwnDatabase, own_database
from tests.support.installation import document_for, installed

OLD = {"grace_ms": 1000, "unknown_object_age_ms": 0}
"""Nothing is too young to be removed."""


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> OwnDatabase:
    return await own_database(postgres)


@pytest.fixture
def document(database: OwnDatabase, postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    return document_for(postgres, s3, database={"url": database.dsn}, sweep=OLD, admin={"trash_ms": 0})


@pytest.fixture
def config(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def mediarepo(config: Path, *words: str) -> tuple[int, str]:
    """Run a command as a program of its own; gives its exit status and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediarepo", *words, "--config", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def go_back(document: dict[str, Any], database: OwnDatabase) -> tuple[str, set[str]]:
    """Upload, dump, upload three more, restore the dump; gives the first's id, and all objects."""
    settings = Settings.model_validate(document)
    async with installed(settings) as own:
        kept = await own.upload(b"from before the dump")
        await own.repository.sweeps.sweep()
    dump = await database.back_up()
    async with installed(settings, migrate=False) as own:
        for _ in range(3):
            await own.upload(secrets.token_bytes(100))
        keys = await own.object_keys()
    await database.restore(dump)
    return kept, keys


async def all_objects(document: dict[str, Any]) -> set[str]:
    async with installed(Settings.model_validate(document), migrate=False) as own:
        return await own.object_keys()


async def test_a_restored_database_deletes_nothing_and_fsck_says_so(
    document: dict[str, Any], database: OwnDatabase, config: Path
) -> None:
    _, keys = await go_back(document, database)

    checked = await mediarepo(config, "fsck")
    swept = [await mediarepo(config, "sweep") for _ in range(3)]
    repaired = await mediarepo(config, "fsck", "--repair")
    doctor = await mediarepo(config, "doctor", "stores")

    assert checked[0] == 1
    assert "3 lost_row" in checked[1]
    assert [status for status, _ in swept] == [1, 1, 1]
    assert repaired[0] == 2
    assert doctor[0] == 1
    for _, said in (checked, *swept, repaired, doctor):
        assert "the database is older than the bucket of store main" in said
    assert await all_objects(document) == keys


async def test_one_lost_object_is_enough_and_uploads_and_downloads_go_on(
    document: dict[str, Any], database: OwnDatabase
) -> None:
    kept, keys = await go_back(document, database)

    async with installed(Settings.model_validate(document), migrate=False) as own:
        old, new = await own.get(own.download_path(kept)), await own.upload(b"after the restore")
        ready, metrics = await own.get("/health/ready"), await own.get("/metrics")
        with pytest.raises(UnavailableError, match="older than the bucket"):
            await own.repository.administration.deletion.empty_trash()
        (report,) = await own.repository.sweeps.sweep()

        assert old.body == b"from before the dump"
        assert (await own.get(own.download_path(new))).body == b"after the restore"
        assert ready.status == 200
        assert "older than the bucket" in ready.json["details"]["database_older_than"]["main"]
        assert b'mediarepo_database_behind{store="main"} 1.0' in metrics.body
        assert report.stopped is not None
        assert await own.object_keys() > keys


async def test_what_a_restored_outbox_holds_is_left_there(document: dict[str, Any], database: OwnDatabase) -> None:
    _, keys = await go_back(document, database)

    async with installed(Settings.model_validate(document), migrate=False) as own:
        await own.rows(
            """INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
               SELECT 'main', k, 0, 0 FROM unnest($1::text[]) AS k RETURNING 1""",
            sorted(keys - {(await own.repository.foundation.recency.table.get("main")).lost_key}),
        )
        gone = await own.repository.sweeps.outbox.drain()

        assert gone == 0
        assert await own.object_keys() == keys


async def test_stale_intents_of_a_restored_database_condemn_nothing(
    document: dict[str, Any], database: OwnDatabase
) -> None:
    settings = Settings.model_validate(document)
    async with installed(settings) as own:
        intents = UploadIntents(own.repository.foundation.database)
        key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms(), intended=True)
        await intents.begin("main", key)
    dump = await database.back_up()
    async with installed(settings, migrate=False) as own:
        await own.store.put(key, [b"published since"], size_bytes=15, metadata={})
        await own.upload(b"another")
        keys = await own.object_keys()
    await database.restore(dump)

    async with installed(settings, migrate=False) as own:
        await own.rows("UPDATE multipart_intent SET heartbeat_ts = 0 RETURNING 1")
        await own.repository.sweeps.sweep()

        assert await own.value("SELECT count(*) FROM multipart_intent") == 1
        assert await own.object_keys() == keys


async def test_an_empty_database_that_claims_the_bucket_deletes_nothing(
    document: dict[str, Any], database: OwnDatabase, config: Path
) -> None:
    _, keys = await go_back(document, database)
    await database.lose()
    await upgrade(Settings.model_validate(document).database)

    claimed = await mediarepo(config, "claim", "main", "--yes")
    swept = [await mediarepo(config, "sweep") for _ in range(3)]
    repaired = await mediarepo(config, "fsck", "--repair")

    assert claimed[0] == 1
    assert "older than the bucket" in claimed[1]
    assert [status for status, _ in swept] == [1, 1, 1]
    assert repaired[0] == 2
    assert await all_objects(document) == keys


async def test_an_empty_database_deletes_no_object_of_the_versions_before(document: dict[str, Any]) -> None:
    async with installed(Settings.model_validate(document)) as own:
        keys = {new_object_key(own.store.prefix, StoreClass.LOCAL, 1_700_000_000_000) for _ in range(3)}
        for key in keys:
            await own.store.put(key, [b"x"], size_bytes=1, metadata={})
        reports = [await own.repository.sweeps.sweep() for _ in range(3)]
        repairs = build_repairs(own.repository.foundation)
        left = [await repairs.repair(own.store, FsckLevel(), lambda _: None) for _ in range(3)]

        assert all("knows no object" in (report.stopped or "") for (report,) in reports)
        assert left == [3, 3, 3]
        assert await own.object_keys() == keys


async def test_the_operator_may_give_lost_objects_up(document: dict[str, Any], database: OwnDatabase) -> None:
    _, keys = await go_back(document, database)

    async with installed(Settings.model_validate(document), migrate=False) as own:
        repairs = build_repairs(own.repository.foundation)
        with pytest.raises(RepairRefusedError, match="older than the bucket"):
            await repairs.check_safe(own.store, FsckProgress(), force=False)
        await repairs.repair(own.store, FsckLevel(), lambda _: None, force=True)
        await own.repository.sweeps.outbox.drain()

        assert len(await own.object_keys()) == len(keys) - 3
        assert await own.repository.foundation.recency.problems() == {}
        assert "details" not in (await own.get("/health/ready")).json


async def test_what_a_crash_leaves_is_no_proof_and_goes_by_its_intent(document: dict[str, Any]) -> None:
    async with installed(Settings.model_validate(document)) as own:
        await own.upload(b"kept")
        keys = await own.object_keys()
        left = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms(), intended=True)
        await UploadIntents(own.repository.foundation.database).begin("main", left)
        await own.store.put(left, [b"x"], size_bytes=1, metadata={})

        assert await own.repository.foundation.recency.look(own.store) is None
        await own.rows("UPDATE multipart_intent SET heartbeat_ts = 0 RETURNING 1")
        (report,) = await own.repository.sweeps.sweep()

        assert report.stopped is None
        assert await own.object_keys() == keys


async def test_unknown_objects_go_only_when_they_were_met_long_before(document: dict[str, Any]) -> None:
    document["sweep"] |= {"unknown_object_age_ms": 3_600_000}
    async with installed(Settings.model_validate(document)) as own:
        await own.upload(b"kept")
        keys = await own.object_keys()
        stranger = new_object_key(own.store.prefix, StoreClass.LOCAL, 1_700_000_000_000)
        await own.store.put(stranger, [b"x"], size_bytes=1, metadata={})

        reports = [await own.repository.sweeps.sweep() for _ in range(2)]
        await own.rows("UPDATE unknown_object SET first_seen_ts = first_seen_ts - 3600001 RETURNING 1")
        (last,) = await own.repository.sweeps.sweep()

        assert [report.condemned for (report,) in reports] == [0, 0]
        assert [report.unknown for (report,) in reports] == [1, 1]
        assert last.condemned == 1
        assert await own.object_keys() == keys
