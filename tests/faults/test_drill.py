"""The drill of docs/restore.md, line by line, with its own commands."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from mediarepo.config.settings import Settings
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.storage.store import Store
from tests.faults.test_older_database import mediarepo
from tests.faults.test_rebuild import OVERRIDES, check_downloads, live, rows_of, write_journal
from tests.support.backups import OwnDatabase, own_database
from tests.support.installation import Installation, document_for, fresh_name, installed

DRILL = Path(__file__).parents[2] / "docs" / "restore.md"


class Site:
    """An installation as an operator has it: a configuration file, a database of its own, a prefix."""

    def __init__(self, database: OwnDatabase, document: dict[str, Any], folder: Path) -> None:
        self.database = database
        self.document = document
        self.config = folder / f"{fresh_name()}.yaml"
        self.save()

    def save(self) -> None:
        self.config.write_text(yaml.safe_dump(self.document))

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.document)

    async def run(self, *words: str, status: int = 0) -> str:
        """Run a command that the page has, and that must end with this status."""
        text = DRILL.read_text()
        shown = [word for word in words if word != "--yes"]
        assert f"mediarepo {' '.join(shown)}" in text
        ended, said = await mediarepo(self.config, *words)
        assert ended == status, said
        return said

    def serving(self) -> Any:
        return installed(self.settings, migrate=False)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        async with Store("main", self.settings.stores["main"]) as store:
            yield store


@pytest.fixture
async def site(postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path) -> Site:
    database = await own_database(postgres)
    made = Site(database, document_for(postgres, s3, database={"url": database.dsn}, **OVERRIDES), tmp_path)
    await made.run("migrate")
    return made


async def copy(source: Store, target: Store) -> None:
    """Copy everything under a prefix to another, as rclone does."""
    async for found in source.list(f"{source.prefix}/"):
        data = await source.read(found.key, max_bytes=10**8)
        key = target.prefix + found.key.removeprefix(source.prefix)
        metadata = await source.metadata_of(found.key) or {}
        await target.put(key, [data], size_bytes=len(data), metadata=metadata)


async def begin(site: Site) -> tuple[dict[str, str], set[str]]:
    async with site.serving() as own:
        ids = await live(own)
        await write_journal(own)
        return ids, await rows_of(own)


async def test_a_lost_database(site: Site) -> None:
    ids, rows = await begin(site)
    await site.database.lose()

    await site.run("migrate")
    await site.run("rebuild", "--from-bucket", "main")
    await site.run("fsck")

    async with site.serving() as own:
        assert await rows_of(own) == rows
        await check_downloads(own, ids)


async def test_an_older_database(site: Site) -> None:
    ids, _ = await begin(site)
    dump = await site.database.back_up()
    async with site.serving() as own:
        ids["since"] = await own.upload(b"after the dump")
        await write_journal(own)
        rows = await rows_of(own)
    await site.database.restore(dump)
    assert "lost_row" in await site.run("fsck", status=1)
    assert "older than the bucket" in await site.run("doctor", "stores", status=1)

    await site.run("migrate")
    await site.run("rebuild", "--from-bucket", "main")
    await site.run("fsck")

    await site.run("doctor", "stores")
    async with site.serving() as own:
        assert await rows_of(own) == rows
        await check_downloads(own, ids)


async def test_a_lost_bucket_with_and_without_its_marker_in_the_copy(site: Site) -> None:
    ids, _ = await begin(site)
    async with (
        site.store() as store,
        Store("copy", site.settings.stores["main"].model_copy(update={"prefix": "tests/" + fresh_name()})) as kept,
    ):
        await copy(store, kept)
        await store.delete([found.key async for found in store.list(f"{store.prefix}/")])
        await copy(kept, store)
        await store.delete([f"{store.prefix}/installation"])

    assert "claimed" in await site.run("claim", "main", "--yes")
    await site.run("fsck")

    async with site.serving() as own:
        await check_downloads(own, ids)


async def test_lost_objects(site: Site) -> None:
    ids, _ = await begin(site)
    async with site.serving() as own:
        key = await own.value(
            "SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", ids["plain"]
        )
        data = await own.store.read(key, max_bytes=1000)
        await own.store.delete([key])

        assert f"row_without_object: main {key}" in await site.run("fsck", status=1)
        await site.run("fsck", "--repair", "--yes", status=1)
        assert (await own.get(own.download_path(ids["plain"]))).status == 404
        await own.store.put(key, [data], size_bytes=len(data), metadata={})
        await site.run("sweep")

        await check_downloads(own, ids)


async def test_a_wrong_bucket(site: Site) -> None:
    ids, _ = await begin(site)
    right = site.document["stores"]["main"]["bucket"]
    site.document["stores"]["main"]["bucket"] = "a-wrong-one"
    site.save()
    await _make_bucket(site)
    async with site.serving() as own:
        refused = await own.request("POST", "/_matrix/media/v3/upload", data=b"x")
        assert refused.status == 503
        assert await own.object_keys() == set()
    site.document["stores"]["main"]["bucket"] = right
    site.save()

    async with site.serving() as own:
        await check_downloads(own, ids)


async def test_two_installations_on_one_prefix(site: Site, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    ids, _ = await begin(site)
    database = await own_database(postgres)
    document = {**site.document, "database": {**site.document["database"], "url": database.dsn}}
    second = Site(database, document, tmp_path)
    await second.run("migrate")

    async with second.serving() as other:
        refused = await other.request("POST", "/_matrix/media/v3/upload", data=b"x")
        await other.repository.sweeps.sweep()

    assert refused.status == 503
    async with site.serving() as own:
        await check_downloads(own, ids)
        (report,) = await own.repository.sweeps.sweep()
        assert report.stopped is None


async def test_a_clone_of_the_database_beside_the_original(
    site: Site, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    ids, _ = await begin(site)
    clone = await site.database.back_up()
    database = OwnDatabase(postgres, clone)
    beside = Site(database, {**site.document, "database": {**site.document["database"], "url": database.dsn}}, tmp_path)
    async with site.serving() as own, beside.serving() as other:
        ids["own"] = await own.upload(b"the original's")
        await other.upload(b"the clone's")
        keys = await own.object_keys()
        for one in (own, other):
            for _ in range(2):
                await one.repository.sweeps.sweep()
        assert await own.object_keys() == keys

    assert "1 lost_row" in await site.run("fsck", status=1)
    await site.run("fsck", "--repair", "--force", "--yes", status=1)

    async with site.serving() as own:
        await own.repository.sweeps.outbox.drain()
        await check_downloads(own, ids)
        assert len(await own.object_keys()) == len(keys) - 1
    await site.run("fsck")


async def test_moving_to_another_provider(site: Site) -> None:
    ids, rows = await begin(site)
    async with site.serving() as own:
        ids["late"] = await own.upload(secrets.token_bytes(9_000_000))
        rows = await rows_of(own)
    old = site.settings.stores["main"]
    site.document["stores"]["main"]["bucket"] = "elsewhere"
    site.save()
    await _make_bucket(site)
    async with Store("old", old) as source, site.store() as target:
        await copy(source, target)

    await site.run("claim", "main", "--yes")
    await site.run("fsck")

    async with site.serving() as own:
        assert await rows_of(own) == rows
        await check_downloads(own, ids)
        await _still_takes_uploads(own)


async def _make_bucket(site: Site) -> None:
    async with site.store() as store:
        await store._control._client.create_bucket(Bucket=store.bucket)


async def _still_takes_uploads(own: Installation) -> None:
    media_id = await own.upload(b"at the new provider's")
    assert (await own.get(own.download_path(media_id))).body == b"at the new provider's"
