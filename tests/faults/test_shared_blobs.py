"""Content that is the content of media and the thumbnail of others at once."""

import secrets

from mediarepo.app.foundation import now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from tests.support.installation import SERVER_NAME, Installation

DATA = b"a thumbnail that media have as their content"


async def shared(own: Installation, source: str, *, parent: bool = True) -> tuple[str, str]:
    """Record an object as a thumbnail of `source` and as media of its own; gives their id and the object's key."""
    media_id, key = f"shared{secrets.token_hex(8)}", new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms())
    await own.store.put(key, [DATA], size_bytes=len(DATA), metadata={})
    blob_id = await own.value(
        """INSERT INTO blob (store, object_key, size_bytes, sha256_state, created_ts, parent_blob_id)
           SELECT 'main', $1, $2, 'unknown', 1, CASE WHEN $4 THEN blob_id END FROM media WHERE media_id = $3
           RETURNING blob_id""",
        key,
        len(DATA),
        source,
        parent,
    )
    await thumbnail(own, source, blob_id)
    await own.rows(
        """INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
           VALUES ($1, $2, 'ready', false, $3, 'image/png', true, 1)""",
        SERVER_NAME,
        media_id,
        blob_id,
    )
    return media_id, key


async def thumbnail(own: Installation, source: str, blob_id: int) -> None:
    await own.rows(
        """INSERT INTO thumbnail (source_blob_id, width, height, method, animated, blob_id, byte_offset, size_bytes,
               content_type) SELECT blob_id, 32, 32, 'crop', false, $2, 0, $3, 'image/png'
           FROM media WHERE media_id = $1""",
        source,
        blob_id,
        len(DATA),
    )


async def delete(own: Installation, media_id: str) -> None:
    await own.rows("UPDATE media SET state = 'trashed', trashed_ts = 1 WHERE media_id = $1", media_id)
    await own.repository.administration.deletion.empty_trash()
    await own.repository.sweeps.outbox.drain()


async def test_deleting_the_thumbnails_source_leaves_the_media_their_content(own: Installation) -> None:
    source = await own.upload(b"source")
    media_id, key = await shared(own, source)

    await delete(own, source)
    answer = await own.get(own.download_path(media_id))
    there = await own.object_keys()
    await delete(own, media_id)

    assert (answer.status, answer.body) == (200, DATA)
    assert there == {key}
    assert await own.object_keys() == set()
    assert await own.value("SELECT count(*) FROM blob") == 0
    assert await own.value("SELECT count(*) FROM failed_item") == 0


async def test_deleting_the_media_leaves_the_source_its_thumbnail(own: Installation) -> None:
    for parent in (True, False):
        source = await own.upload(b"source")
        media_id, key = await shared(own, source, parent=parent)

        await delete(own, media_id)
        answer = await own.get(own.thumbnail_path(source))
        there = await own.object_keys()
        await delete(own, source)

        assert (answer.status, answer.body) == (200, DATA)
        assert key in there
        assert await own.object_keys() == set()
        assert await own.value("SELECT count(*) FROM blob") == 0


async def test_a_thumbnail_of_two_sources_stays_until_both_are_gone(own: Installation) -> None:
    first, second = await own.upload(b"first"), await own.upload(b"second")
    media_id, _ = await shared(own, first)
    await thumbnail(own, second, await own.value("SELECT blob_id FROM media WHERE media_id = $1", media_id))

    await delete(own, media_id)
    await delete(own, first)
    answer = await own.get(own.thumbnail_path(second))
    await delete(own, second)

    assert (answer.status, answer.body) == (200, DATA)
    assert await own.value("SELECT count(*) FROM blob") == 0
    assert await own.object_keys() == set()


async def test_removing_a_pack_of_thumbnails_leaves_media_their_content(own: Installation) -> None:
    source = await own.upload(b"source")
    media_id, _ = await shared(own, source)
    pack = await own.value("SELECT blob_id FROM media WHERE media_id = $1", media_id)

    await DeletionTable(own.repository.foundation.database).delete_packs([pack])
    answer = await own.get(own.download_path(media_id))

    assert (answer.status, answer.body) == (200, DATA)
    assert await own.value("SELECT count(*) FROM thumbnail") == 0
    assert await DeletionTable(own.repository.foundation.database).delete(Mxc(SERVER_NAME, media_id))
    assert await own.value("SELECT count(*) FROM blob") == 1
