"""A database made of the bucket alone: lost, or older; killed meanwhile; with things missing."""

import asyncio
import json
import secrets
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.app.build_services import build_journal
from mediarepo.config.settings import Settings
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.journal import JournalTable
from mediarepo.db.migrations import upgrade
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.mxc import Mxc
from tests.faults.test_older_database import mediarepo
from tests.pictures.drawn import jpeg
from tests.support.backups import OwnDatabase, own_database
from tests.support.installation import Installation, document_for, installed
from tests.support.two_stores import cold, keys_in, let_graces_pass, move

OVERRIDES: dict[str, Any] = {
    "sweep": {"grace_ms": 1000, "unknown_object_age_ms": 0, "enabled": False},
    "admin": {"token": "operator"},
    "journal": {"interval_ms": 3_600_000},
    "log": {"level": "error"},
}


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> OwnDatabase:
    return await own_database(postgres)


@pytest.fixture
def document(database: OwnDatabase, postgres: EmbeddedPostgres, s3: EmbeddedS3) -> dict[str, Any]:
    return document_for(postgres, s3, database={"url": database.dsn}, **OVERRIDES)


@pytest.fixture
def settings(document: dict[str, Any]) -> Settings:
    return Settings.model_validate(document)


@pytest.fixture
def config(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def write_journal(own: Installation) -> None:
    await build_journal(own.repository.foundation).write()


async def rows_of(own: Installation) -> set[str]:
    """Read all rows that matter, in words that stay the same in another database."""
    table = JournalTable(own.repository.foundation.database)
    return {line async for page in table.all_lines() async for line in _each(page)}


async def _each(page: list[str]) -> Any:
    for line in page:
        yield line


async def hide(own: Installation, media_id: str) -> None:
    path = f"/_synapse/admin/v1/media/quarantine/{own.server_name}/{media_id}"
    assert (await own.request("POST", path, token="operator")).status == 200


async def live(own: Installation) -> dict[str, str]:
    """Do something of everything; gives media ids by what became of them."""
    picture = jpeg(640, 480)
    ids = {
        "plain": await own.upload(b"plain", content_type="text/plain", query="?filename=caf%C3%A9.txt"),
        "large": await own.upload(secrets.token_bytes(9_000_000)),
        "first": await own.upload(b"twice the same"),
        "second": await own.upload(b"twice the same"),
        "picture": await own.upload(picture),
        "hidden": await own.upload(b"not for anybody"),
        "held": await own.upload(b"held"),
        "trashed": await own.upload(b"trashed"),
        "deleted": await own.upload(b"deleted for good"),
    }
    assert (await own.get(own.thumbnail_path(ids["picture"]))).status == 200
    await hide(own, ids["hidden"])
    await own.mark(ids["held"], "hold")
    await own.request("DELETE", f"/_synapse/admin/v1/media/{own.server_name}/{ids['trashed']}", token="operator")
    await DeletionTable(own.repository.foundation.database).delete(Mxc(own.server_name, ids["deleted"]))
    await own.repository.sweeps.outbox.drain()
    return ids


async def check_downloads(own: Installation, ids: dict[str, str]) -> None:
    statuses = {name: (await own.get(own.download_path(media_id))).status for name, media_id in ids.items()}
    gone = dict.fromkeys(("hidden", "trashed", "deleted"), 404)
    assert statuses == dict.fromkeys(ids, 200) | {name: 404 for name in gone if name in ids}


async def test_a_lost_database_comes_back_whole(database: OwnDatabase, settings: Settings, config: Path) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await write_journal(own)
        ids["later"] = await own.upload(b"after the whole copy")
        await own.request("DELETE", f"/_synapse/admin/v1/media/{own.server_name}/{ids['first']}", token="operator")
        await write_journal(own)
        before, keys = await rows_of(own), await own.object_keys()
        before_headers = (await own.get(own.download_path(ids["plain"]))).headers
    await database.lose()
    await upgrade(settings.database)

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")
    checked = await mediarepo(config, "fsck", "--hashes")

    assert (status, checked[0]) == (0, 0), (said, checked)
    async with installed(settings, migrate=False) as own:
        assert await rows_of(own) == before
        assert await own.object_keys() == keys
        del ids["first"]
        await check_downloads(own, ids)
        again = await own.get(own.download_path(ids["plain"]))
        assert again.headers["Content-Disposition"] == before_headers["Content-Disposition"]
        assert (await own.get("/health/ready")).json == {"status": "ok"}
        (report,) = await own.repository.sweeps.sweep()
        assert (report.stopped, report.unknown) == (None, 0)
        copy = await own.request("POST", "/_matrix/media/v3/upload", data=b"not for anybody")
        copy_id = copy.json["content_uri"].rpartition("/")[2]
        assert (await own.get(own.download_path(copy_id))).status == 404


async def test_what_was_moved_to_another_store_is_found_there(
    database: OwnDatabase, document: dict[str, Any], config: Path
) -> None:
    document["stores"]["cold"] = {
        **document["stores"]["main"],
        "prefix": f"{document['stores']['main']['prefix']}-cold",
    }
    config.write_text(yaml.safe_dump(document))
    settings = Settings.model_validate(document)
    async with installed(settings) as own:
        ids = await live(own)
        await own.rows(
            """INSERT INTO quarantined_blob (blob_id, quarantined_by, reason, created_ts, owner, scope)
               SELECT blob_id, '', '', 1, '', '' FROM media WHERE media_id = $1""",
            ids["hidden"],
        )
        await write_journal(own)
    dump = await database.back_up()
    async with installed(settings, migrate=False) as own:
        tally = await move(own)
        await write_journal(own)
        await let_graces_pass(own)
        before, keys = await rows_of(own), await keys_in(cold(own))
        assert (tally.failed, await keys_in(own.store)) == (0, set())

    for lose in (database.lose, partial(database.restore, dump)):
        await lose()
        await upgrade(settings.database)
        status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")
        checked = await mediarepo(config, "fsck", "--hashes")

        assert (status, checked[0]) == (0, 0), (said, checked)
        async with installed(settings, migrate=False) as own:
            assert await rows_of(own) == before
            assert await keys_in(cold(own)) == keys
            await check_downloads(own, ids)


async def test_of_the_last_minute_comes_back_what_has_an_object_of_its_own(
    database: OwnDatabase, settings: Settings, config: Path
) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await write_journal(own)
        late = {
            "small": await own.upload(b"in the last minute", content_type="text/plain", query="?filename=l%C3%A4t.txt"),
            "large": await own.upload(secrets.token_bytes(9_000_000)),
        }
        rows = [await own.rows("SELECT * FROM media WHERE media_id = $1", media_id) for media_id in late.values()]
    await database.lose()
    await upgrade(settings.database)

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")

    assert status == 0, said
    assert "2 objects adopted by their metadata" in said
    async with installed(settings, migrate=False) as own:
        await check_downloads(own, ids | late)
        for media_id, (row,) in zip(late.values(), rows, strict=True):
            (again,) = await own.rows("SELECT * FROM media WHERE media_id = $1", media_id)
            same = ("content_type", "upload_name", "uploaded_by", "authenticated", "state", "remote")
            assert [again[name] for name in same] == [row[name] for name in same]


async def test_an_older_database_is_filled_up_to_now(database: OwnDatabase, settings: Settings, config: Path) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await write_journal(own)
        ids["soon_gone"] = await own.upload(b"deleted after the dump")
        ids["soon_hidden"] = await own.upload(b"hidden after the dump")
    dump = await database.back_up()
    async with installed(settings, migrate=False) as own:
        await DeletionTable(own.repository.foundation.database).delete(Mxc(own.server_name, ids.pop("soon_gone")))
        await hide(own, ids["soon_hidden"])
        ids["new"] = await own.upload(b"after the dump")
        ids["new_copy"] = await own.upload(b"after the dump")
        await own.rows("DELETE FROM media_mark WHERE media_id = $1 RETURNING 1", ids["held"])
        await own.repository.sweeps.outbox.drain()
        await write_journal(own)
        before = await rows_of(own)
    await database.restore(dump)
    async with installed(settings, migrate=False) as own:
        since = await own.upload(b"after the restore")

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")

    assert status == 0, said
    async with installed(settings, migrate=False) as own:
        after = await rows_of(own)
        new = {line for line in after - before if since in line or '"kind":"blob"' in line}
        assert before <= after
        assert after - before == new
        hidden = await own.get(own.download_path(ids.pop("soon_hidden")))
        assert hidden.status == 404
        assert (await own.get(own.download_path(since))).body == b"after the restore"
        await check_downloads(own, ids)
        assert await own.repository.foundation.recency.problems() == {}


async def test_a_rebuild_that_is_killed_goes_on(database: OwnDatabase, settings: Settings, config: Path) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await own.rows(
            """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated,
                   created_ts)
               SELECT 'media.example', 'planted' || n, 'ready', false, (SELECT max(blob_id) FROM blob), 'text/plain',
                   true, n FROM generate_series(1, 40000) AS n RETURNING 1"""
        )
        await write_journal(own)
        before = await rows_of(own)
    await database.lose()
    await upgrade(settings.database)
    deaths = 0
    async with installed(settings, migrate=False) as own:
        for query in ("SELECT count(*) FROM rebuild_row", "SELECT count(*) FROM media"):
            command = [sys.executable, "-m", "mediarepo", "rebuild", "--from-bucket", "main", "-c", str(config)]
            process = await asyncio.create_subprocess_exec(*command)
            async with asyncio.timeout(120):
                while not await own.value(query) and process.returncode is None:
                    await asyncio.sleep(0.01)
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                deaths += 1
            await process.wait()
            await own.rows("DELETE FROM lease RETURNING 1")

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")

    assert (status, deaths) == (0, 2), said
    async with installed(settings, migrate=False) as own:
        assert await rows_of(own) == before
        await check_downloads(own, ids)


async def test_what_is_missing_is_told(database: OwnDatabase, settings: Settings, config: Path) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await write_journal(own)
        key = await own.value(
            "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", ids["plain"]
        )
        await own.store.delete([key])
    await database.lose()
    await upgrade(settings.database)

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main", "--json")

    told = json.loads(said.splitlines()[-1])
    assert (status, told["missing_count"], told["whole"]) == (1, 1, False)
    assert told["missing"] == [f"mxc://media.example/{ids['plain']}: row_without_object main {key}"]


async def test_a_broken_copy_is_told_and_an_older_one_is_taken(
    database: OwnDatabase, settings: Settings, config: Path
) -> None:
    async with installed(settings) as own:
        ids = await live(own)
        await write_journal(own)
        await own.rows("UPDATE journal_state SET snapshot_ts = 0 RETURNING 1")
        ids["later"] = await own.upload(b"later")
        await write_journal(own)
        before = await rows_of(own)
        snapshots = [one.key async for one in own.store.list(f"{own.store.prefix}/journal/") if "/snapshot/" in one.key]
        data = await own.store.read(snapshots[-1], max_bytes=10**7)
        await own.store.put(snapshots[-1], [data[:-20]], size_bytes=len(data) - 20, metadata={})
    await database.lose()
    await upgrade(settings.database)

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")

    assert len(snapshots) == 2
    assert status == 1
    assert f"unreadable: {snapshots[-1]}" in said
    async with installed(settings, migrate=False) as own:
        assert await rows_of(own) == before
        await check_downloads(own, ids)


async def test_a_bucket_without_marker_and_journal_is_refused(settings: Settings, config: Path) -> None:
    await upgrade(settings.database)

    status, said = await mediarepo(config, "rebuild", "--from-bucket", "main")

    assert status == 2
    assert "is this the right bucket" in said
