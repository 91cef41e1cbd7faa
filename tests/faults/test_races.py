import asyncio
import hashlib
import secrets

from mediarepo.app.foundation import now_ms
from mediarepo.db.database import Connection
from mediarepo.db.deletion import DeletionTable, delete_if_unreferenced
from mediarepo.db.publishing import PublishTable
from mediarepo.model.ids import new_media_id, new_object_key
from mediarepo.model.media import NewMedia, NewObject, StoreClass
from mediarepo.model.mxc import Mxc
from tests.support.installation import Installation

GRACE_MS = 3_600_000


def media_of(own: Installation) -> NewMedia:
    mxc = Mxc(own.server_name, new_media_id())
    return NewMedia(mxc=mxc, content_type="a/b", upload_name=None, uploaded_by="@a:b", authenticated=True)


async def stored(own: Installation, data: bytes) -> NewObject:
    """Put an object as an upload would, right up to the moment before its row."""
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms())
    await own.store.put(key, [data], size_bytes=len(data), metadata={})
    sha256 = hashlib.sha256(data).digest()
    return NewObject(store="main", object_key=key, key_ts=now_ms(), size_bytes=len(data), sha256=sha256)


async def blocked_statements(own: Installation) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'mediarepo'"
    return int(await own.value(query))


async def until_blocked(own: Installation) -> None:
    async with asyncio.timeout(20):
        while not await blocked_statements(own):
            await asyncio.sleep(0.01)


async def test_two_uploads_of_the_same_new_bytes_share_one_object_and_the_loser_is_removed(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    publishing = PublishTable(own.repository.foundation.database, GRACE_MS)
    objects = [await stored(own, data) for _ in range(2)]
    media = [media_of(own) for _ in range(2)]

    await asyncio.gather(*(publishing.publish(one, kept) for one, kept in zip(media, objects, strict=True)))

    assert len(await own.object_keys()) == 2
    assert await own.repository.sweeps.outbox.drain() == 1
    assert await own.object_keys() == {await own.value("SELECT object_key FROM blob")}
    for one in media:
        assert (await own.get(own.download_path(one.mxc.media_id))).body == data


async def test_the_second_waits_for_the_first_and_joins_it_when_it_commits(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    database = own.repository.foundation.database
    first, second = await stored(own, data), await stored(own, data)
    publishing = PublishTable(database, GRACE_MS)

    async with database.transaction() as connection:
        await publishing._own_or_join(connection, first)
        later = asyncio.create_task(publishing.publish(media_of(own), second))
        await until_blocked(own)
    await later

    assert await own.value("SELECT object_key FROM blob") == first.object_key
    assert await own.value("SELECT object_key FROM object_deletion") == second.object_key


async def test_the_second_becomes_the_owner_when_the_first_fails(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    database = own.repository.foundation.database
    first, second = await stored(own, data), await stored(own, data)
    publishing = PublishTable(database, GRACE_MS)

    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await publishing._own_or_join(connection, first)
        later = asyncio.create_task(publishing.publish(media_of(own), second))
        await until_blocked(own)
        await transaction.rollback()
    await later

    assert await own.value("SELECT object_key FROM blob") == second.object_key
    assert await own.value("SELECT count(*) FROM object_deletion") == 0


async def test_an_upload_that_found_the_blob_keeps_it_from_the_last_delete(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    old_id = await own.upload(data)
    found, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        found.set()
        await go_on.wait()

    database, new = own.repository.foundation.database, media_of(own)
    publishing = PublishTable(database, GRACE_MS, on_lock=hold)
    linking = asyncio.create_task(publishing.link(new, store="main", sha256=hashlib.sha256(data).digest()))
    await found.wait()
    deletion_table = asyncio.create_task(DeletionTable(database).delete(Mxc(own.server_name, old_id)))
    await until_blocked(own)
    go_on.set()

    assert await linking is True
    assert await deletion_table is True
    assert await own.repository.sweeps.outbox.drain() == 0
    assert (await own.get(own.download_path(new.mxc.media_id))).body == data
    assert (await own.get(own.download_path(old_id))).status == 404


async def test_an_upload_that_begins_while_the_last_of_its_content_is_deleted_loses_nothing(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    old_id, new = await own.upload(data), media_of(own)
    database = own.repository.foundation.database
    publishing, sha256 = PublishTable(database, GRACE_MS), hashlib.sha256(data).digest()
    key = new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms(), intended=True)

    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE media IN SHARE MODE")  # blobs can be found, and no media made of them
        beginning = asyncio.create_task(publishing.begin(new, store="main", sha256=sha256, object_key=key))
        await until_blocked(own)
        deleting = asyncio.create_task(DeletionTable(database).delete(Mxc(own.server_name, old_id)))
        async with asyncio.timeout(20):
            while await blocked_statements(own) < 2:
                await asyncio.sleep(0.01)

    assert (await beginning, await deleting) == (True, True)
    await own.repository.sweeps.outbox.drain()
    assert (await own.get(own.download_path(new.mxc.media_id))).body == data
    assert (await own.get(own.download_path(old_id))).status == 404
    assert await own.value("SELECT count(*) FROM multipart_intent") == 0


async def test_an_upload_that_comes_after_the_last_delete_stores_the_bytes_anew(own: Installation) -> None:
    data = secrets.token_bytes(1000)
    old_id = await own.upload(data)
    old_key = await own.value("SELECT object_key FROM blob")
    database = own.repository.foundation.database

    async def let_go_of_everything(connection: Connection) -> None:
        blob_id = await connection.fetchval("UPDATE media SET state = 'tombstone', blob_id = NULL RETURNING 1")
        blob_id = await connection.fetchval("SELECT blob_id FROM blob")
        await delete_if_unreferenced(connection, blob_id)

    async with database.transaction() as connection:
        await let_go_of_everything(connection)
        uploading = asyncio.create_task(own.upload(data))
        await until_blocked(own)
    new_id = await uploading
    await own.repository.sweeps.outbox.drain()

    new_key = await own.value("SELECT object_key FROM blob")
    assert new_key != old_key
    assert await own.object_keys() == {new_key}
    assert (await own.get(own.download_path(new_id))).body == data
    assert (await own.get(own.download_path(old_id))).status == 404


async def test_a_key_that_grew_too_old_is_not_published(own: Installation) -> None:
    publishing = PublishTable(own.repository.foundation.database, 1000)
    kept = await stored(own, b"late")
    await asyncio.sleep(0.6)

    answer = await asyncio.gather(publishing.publish(media_of(own), kept), return_exceptions=True)

    assert type(answer[0]).__name__ == "StaleKeyError"
    assert await own.value("SELECT count(*) FROM blob") == 0


async def test_content_found_missing_while_its_media_are_deleted_blocks_nobody(own: Installation) -> None:
    for _ in range(10):
        data = secrets.token_bytes(30)
        media_ids = [await own.upload(data) for _ in range(6)]
        await own.store.delete(list(await own.object_keys()))
        deletion_table = DeletionTable(own.repository.foundation.database)

        answers, deleted = await asyncio.gather(
            asyncio.gather(*(own.get(own.download_path(media_id)) for media_id in media_ids[:3])),
            asyncio.gather(*(deletion_table.delete(Mxc(own.server_name, media_id)) for media_id in media_ids)),
        )

        assert {answer.status for answer in answers} == {404}
        assert all(deleted)
    assert await own.value("SELECT count(*) FROM blob") == 0
