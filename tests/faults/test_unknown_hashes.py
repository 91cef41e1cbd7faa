"""Content whose hash nobody told us, as that of adopted objects, against quarantine."""

import asyncio
import hashlib
import secrets

import pytest

from mediarepo.app.foundation import now_ms
from mediarepo.cli.administration import operator
from mediarepo.model.ids import new_object_key
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from tests.pictures.drawn import corners, encoded
from tests.support.installation import SERVER_NAME, Installation, installed

PICTURE = encoded(corners(64, 64), "PNG")


async def adopt(own: Installation, data: bytes, *, ownership: str = "borrowed") -> str:
    """Register an object of which nobody told us the hash."""
    media_id, key = f"adopted{secrets.token_hex(8)}", new_object_key(own.store.prefix, StoreClass.LOCAL, now_ms())
    await own.store.put(key, [data], size_bytes=len(data), metadata={})
    await own.rows(
        """WITH b AS (INSERT INTO blob (store, object_key, size_bytes, sha256_state, ownership, created_ts)
               VALUES ('main', $1, $2, 'unknown', $3, 1) RETURNING blob_id)
           INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
           SELECT $4, $5, 'ready', false, blob_id, 'image/png', true, 1 FROM b""",
        key,
        len(data),
        ownership,
        SERVER_NAME,
        media_id,
    )
    return media_id


KEY_OF = "SELECT object_key FROM media JOIN blob USING (blob_id) WHERE media_id = $1"


async def status(own: Installation, media_id: str) -> int:
    return (await own.get(own.download_path(media_id))).status


async def hide(own: Installation, media_id: str) -> None:
    admin = own.repository.administration
    await admin.quarantine.hide(Mxc(SERVER_NAME, media_id), operator(own.settings), reason=None)
    await own.repository.foundation.invalidation.settle()


async def known(own: Installation) -> int:
    return int(await own.value("SELECT count(*) FROM blob WHERE sha256_state <> 'unknown'"))


@pytest.mark.parametrize("ownership", ["borrowed", "owned"])
async def test_adopted_copies_of_hidden_content_are_hidden_on_every_path(own: Installation, ownership: str) -> None:
    uploaded, adopted = await own.upload(PICTURE), await adopt(own, PICTURE, ownership=ownership)
    before = await status(own, adopted)
    unread = await known(own)
    await hide(own, uploaded)
    async with installed(own.settings, migrate=False) as other:
        answers = await asyncio.gather(
            own.get(own.download_path(adopted)),
            own.get(own.thumbnail_path(adopted)),
            other.get(other.download_path(adopted)),
            other.get(other.thumbnail_path(adopted)),
            own.request("HEAD", own.download_path(adopted)),
        )

    assert (before, unread) == (200, 1)
    assert [answer.status for answer in answers] == [404] * 5
    assert await own.value("SELECT sha256 FROM blob WHERE sha256_state <> 'verified' OR ownership = 'borrowed'") == (
        hashlib.sha256(PICTURE).digest()
    )


@pytest.mark.parametrize("thumbnail", [False, True])
async def test_content_that_arrives_while_somebody_waits_is_looked_at_too(own: Installation, thumbnail: bool) -> None:
    await hide(own, await own.upload(PICTURE))
    created = await own.request("POST", "/_matrix/media/v1/create")
    announced, adopted = created.json["content_uri"].rpartition("/")[2], await adopt(own, PICTURE)
    path = own.thumbnail_path(announced, query="&") if thumbnail else f"{own.download_path(announced)}?"
    waiting = asyncio.create_task(own.get(f"{path}timeout_ms=60000"))
    async with asyncio.timeout(30):
        while not own.repository.upload_waiters.waiters.in_use:
            await asyncio.sleep(0.01)
    await own.rows(
        """UPDATE media SET state = 'ready', expires_ts = NULL,
               blob_id = (SELECT blob_id FROM media WHERE media_id = $1)
           WHERE media_id = $2""",
        adopted,
        announced,
    )

    assert (await waiting).status == 404


async def test_thumbnails_of_content_that_is_lost_before_its_hash_is_known_are_not_served(own: Installation) -> None:
    uploaded, adopted = await own.upload(PICTURE), await adopt(own, PICTURE)
    before = (await own.get(own.thumbnail_path(adopted))).status
    await own.store.delete([await own.value(KEY_OF, adopted)])
    await hide(own, uploaded)

    assert before == 200
    assert (await own.get(own.thumbnail_path(adopted))).status == 404
    assert await own.value("SELECT state FROM media WHERE media_id = $1", adopted) == "missing"


async def test_nobody_waits_for_content_that_will_be_hidden(own: Installation) -> None:
    created = await own.request("POST", "/_matrix/media/v1/create")
    announced = created.json["content_uri"].rpartition("/")[2]
    await own.mark(announced, "quarantine")

    async with asyncio.timeout(20):
        assert (await own.get(f"{own.download_path(announced)}?timeout_ms=60000")).status == 404


async def test_content_of_another_length_is_not_read_for_it(own: Installation) -> None:
    uploaded, adopted = await own.upload(b"bad content"), await adopt(own, b"of another length")
    same_length = await adopt(own, b"good conten")
    await hide(own, uploaded)

    assert await status(own, adopted) == 200
    assert await known(own) == 1
    assert await status(own, same_length) == 200
    assert await known(own) == 2


async def test_hiding_adopted_media_hides_uploads_of_the_same(own: Installation) -> None:
    uploaded, adopted, twin = await own.upload(PICTURE), await adopt(own, PICTURE), await adopt(own, PICTURE)
    await hide(own, adopted)

    assert [await status(own, one) for one in (uploaded, adopted, twin)] == [404, 404, 404]
    assert await status(own, await own.upload(PICTURE)) == 404


async def test_hiding_goes_on_when_one_of_the_contents_cannot_be_read_and_its_copies_are_hidden_later(
    own: Installation,
) -> None:
    bad, good = await adopt(own, PICTURE), await adopt(own, b"another")
    copy = await adopt(own, PICTURE)
    await own.rows("UPDATE media SET uploaded_by = '@a:media.example' WHERE media_id = ANY($1)", [bad, good])
    place = "(SELECT blob_id FROM media WHERE media_id = $1)"
    await own.rows(f"UPDATE blob SET store = 'unheard-of' WHERE blob_id = {place}", bad)
    admin = own.repository.administration
    await admin.quarantine.hide_user_media("@a:media.example", operator(own.settings))
    at_once = [await status(own, one) for one in (bad, good)]
    set_aside = [one.queue for one in await admin.failed_items.read(queue=None, limit=10)]
    await own.rows(f"UPDATE blob SET store = 'main' WHERE blob_id = {place}", bad)
    await admin.failed_items.retry("@a:a", queue=None, key=None)
    await admin.hashing.learn_suspects()

    assert at_once == [404, 404]
    assert set_aside == ["hashing"]
    assert await status(own, copy) == 404
    assert await admin.failed_items.read(queue=None, limit=10) == []


async def test_a_list_of_hashes_of_unknown_length_has_everything_adopted_looked_at(own: Installation) -> None:
    bad, good = await adopt(own, b"bad"), await adopt(own, b"good")

    quarantine = own.repository.administration.quarantine
    await quarantine.hide_hashes([hashlib.sha256(b"bad").digest()], operator(own.settings), reason=None)
    await own.repository.foundation.invalidation.settle()

    assert [await status(own, bad), await status(own, good)] == [404, 200]
    assert await known(own) == 2


async def test_what_may_be_hidden_is_looked_at_by_the_clock(own: Installation) -> None:
    uploaded, adopted = await own.upload(PICTURE), await adopt(own, PICTURE)
    lost = await adopt(own, PICTURE)
    key = await own.value("SELECT object_key FROM blob JOIN media USING (blob_id) WHERE media_id = $1", lost)
    await own.store.delete([key])
    await hide(own, uploaded)
    result = await own.repository.administration.hashing.learn_suspects()

    assert result == {"hashed": 2}
    assert await known(own) == 2
    assert await status(own, adopted) == 404


async def test_protected_media_are_served_unread(own: Installation) -> None:
    uploaded, adopted = await own.upload(PICTURE), await adopt(own, PICTURE)
    await own.mark(adopted, "protection")
    await hide(own, uploaded)

    assert await status(own, adopted) == 200


async def test_equal_content_that_is_learnt_twice_at_once_is_known_twice(own: Installation) -> None:
    table = own.repository.administration.hashing._table
    for number in range(25):
        data = b"content %d" % number
        await asyncio.gather(*(adopt(own, data, ownership="owned") for _ in range(2)))
        blobs = await table.of([Mxc(SERVER_NAME, row[0]) for row in await own.rows("SELECT media_id FROM media")])
        await asyncio.gather(*(table.keep(blob, hashlib.sha256(data).digest()) for blob in blobs))

    assert await own.value("SELECT count(*) FROM blob WHERE sha256_state = 'verified'") == 25
    assert await own.value("SELECT count(*) FROM blob WHERE sha256_state = 'claimed' AND claim_checked") == 25


async def purge(own: Installation, media_id: str) -> None:
    """Delete media, and empty the trash."""
    admin = own.repository.administration
    await admin.deletion.delete([Mxc(SERVER_NAME, media_id)], operator(own.settings))
    await own.rows("UPDATE media SET trashed_ts = 1 WHERE state = 'trashed'")
    await admin.deletion.empty_trash()


@pytest.mark.parametrize("ownership", ["borrowed", "owned"])
async def test_quarantine_of_content_that_was_not_read_outlives_its_deletion(own: Installation, ownership: str) -> None:
    bad = await adopt(own, PICTURE, ownership=ownership)
    await own.rows("UPDATE blob SET store = 'unheard-of'")
    await hide(own, bad)
    await purge(own, bad)
    await own.rows("UPDATE blob SET store = 'main'")
    kept = await own.value("SELECT count(*) FROM blob")
    await own.repository.administration.failed_items.retry("@a:a", queue=None, key=None)
    await own.repository.administration.hashing.learn_suspects()

    assert kept == 1
    assert await own.value("SELECT count(*) FROM blob") == 0
    assert await own.value("SELECT count(*) FROM object_deletion") == (ownership == "owned")
    assert await status(own, await own.upload(PICTURE)) == 404


async def test_content_that_is_learnt_and_hidden_at_once_is_hidden_by_its_hash(own: Installation) -> None:
    table = own.repository.administration.hashing._table
    quarantine = own.repository.administration.quarantine
    for number in range(25):
        data = b"content %d" % number
        mxc = Mxc(SERVER_NAME, await adopt(own, data))
        (blob,) = await table.of([mxc])
        act = quarantine.authorization.admin_action(operator(own.settings), "quarantine")
        await asyncio.gather(
            quarantine.table.hide([mxc], act, str(mxc), scopes=[""]), table.keep(blob, hashlib.sha256(data).digest())
        )

        assert await status(own, await own.upload(data)) == 404
