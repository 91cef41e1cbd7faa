"""Objects move between stores while people read, upload, delete and hide; nothing is lost, nothing leaks."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mediarepo.app.build_services import build_repairs
from mediarepo.config.storage import StoreConfig
from mediarepo.db.database import LeaseLostError
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.media import MediaTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.errors import InvalidParamError, LimitExceededError
from mediarepo.model.media import Blob, StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.model.store_moves import MovableObject, MoveOutcome, MoveSelection
from mediarepo.services.fsck import FsckLevel, FsckProgress
from mediarepo.services.store_moves.run import LEASE, MoveOptions
from mediarepo.storage.store import Store
from tests.pictures.drawn import jpeg
from tests.support.installation import Installation, installed, settings_for
from tests.support.two_stores import (
    ALL,
    BACK,
    SERVER_SIDE,
    STREAMED,
    InterruptedTable,
    cold,
    keys_in,
    let_graces_pass,
    move,
    moves_of,
    places,
    two_stores,
)

MIB = 1024 * 1024
WAYS = pytest.mark.parametrize("options", [SERVER_SIDE, STREAMED], ids=["server-side", "streamed"])


@pytest.fixture
async def own(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    document = two_stores(postgres, s3, uploads={"part_bytes": 5 * MIB}, admin={"token": "operator"})
    async with installed(settings_for(postgres, s3, **document)) as running:
        yield running


async def drifts(own: Installation) -> list[str]:
    """Compare both stores with the rows, hashes too."""
    fsck, found = build_repairs(own.repository.foundation).fsck, list[str]()
    for store in own.repository.foundation.stores.by_name.values():
        async for drift in fsck.check(store, FsckLevel(hashes=True), FsckProgress(), lambda: None):
            found.append(f"{drift.kind} {drift.store} {drift.object_key}")
    return found


async def body_of(own: Installation, media_id: str) -> bytes:
    answer = await own.get(own.download_path(media_id))
    assert answer.status == 200, answer
    return answer.body


@WAYS
async def test_everything_moves_and_stays_readable(own: Installation, options: MoveOptions) -> None:
    contents = [b"", secrets.token_bytes(1000), secrets.token_bytes(12 * MIB + 7), jpeg(300, 200)]
    ids = [await own.upload(data) for data in contents]
    same = await own.upload(contents[1])
    thumbnail = await own.get(own.thumbnail_path(ids[3]))
    before, metadata = await keys_in(own.store), await own.store.metadata_of((await places(own))[ids[2]][0][1])

    tally = await move(own, options=options)

    assert (tally.planned, tally.moved, tally.failed) == (5, 5, 0)
    assert {store for found in (await places(own)).values() for store, _ in found} == {"cold"}
    assert [await body_of(own, media_id) for media_id in ids] == contents
    assert await body_of(own, same) == contents[1]
    assert (await own.get(own.thumbnail_path(ids[3]))).body == thumbnail.body
    assert await cold(own).metadata_of((await places(own))[ids[2]][0][1]) == metadata
    assert metadata is not None
    assert metadata["mxc"] == f"mxc://{own.server_name}/{ids[2]}"
    assert await keys_in(own.store) == before  # for those who read a row before
    assert await own.repository.sweeps.outbox.drain() == 0
    assert await drifts(own) == []

    assert await let_graces_pass(own) == 5
    assert await keys_in(own.store) == set()
    assert [await body_of(own, media_id) for media_id in ids] == contents
    assert await drifts(own) == []
    usage = {(one.store, one.object_count) for one in await own.repository.administration.usage.of_objects()}
    assert {("cold", 4), ("cold", 1)} <= usage
    assert sum(count for store, count in usage if store == "main") == 0
    assert await own.value("SELECT count(*) FROM multipart_intent") == 0


async def test_a_move_stands_in_the_audit_of_each_homeserver_with_its_own_count(own: Installation) -> None:
    await own.upload(b"one")
    await own.upload(b"two")
    await own.rows("UPDATE media SET server_name = 'other.example' WHERE blob_id = (SELECT max(blob_id) FROM blob)")
    await own.upload(b"three")

    await move(own)

    rows = await own.rows("SELECT homeserver, target, affected, admin FROM audit_log WHERE action = 'move_objects'")
    assert {tuple(row) for row in rows} == {
        ("media.example", "store main to store cold", 2, "somebody"),
        ("other.example", "store main to store cold", 1, "somebody"),
    }


async def test_only_what_is_chosen_moves(own: Installation) -> None:
    old, big, elsewhere = await own.upload(b"old"), await own.upload(b"big" * 100), await own.upload(b"elsewhere")
    picture = await own.upload(jpeg(300, 200))
    assert (await own.get(own.thumbnail_path(picture))).status == 200
    await own.rows("UPDATE media SET created_ts = 1 WHERE media_id = $1", old)
    await own.rows("UPDATE media SET server_name = 'far.example', remote = true WHERE media_id = $1", elsewhere)
    before = await places(own)

    async def chosen(**conditions: object) -> set[str]:
        selection = replace(ALL, **conditions)  # type: ignore[arg-type]
        keys = {one.object_key async for page in moves_of(own).table.chosen(selection) for one in page}
        return {media_id for media_id, found in before.items() if keys & {key for _, key in found}}

    assert await chosen() == {old, big, elsewhere, picture}
    assert await chosen(created_before_ts=1000) == {old}
    assert await chosen(larger_than_bytes=250) == {big, picture}
    assert await chosen(server_name="far.example") == {elsewhere}
    assert await chosen(classes=(StoreClass.REMOTE,)) == {elsewhere}
    assert await chosen(classes=(StoreClass.THUMBNAILS,)) == {picture}
    assert await chosen(classes=(StoreClass.LOCAL,), larger_than_bytes=299) == {big, picture}
    await own.rows("INSERT INTO media_access SELECT server_name, media_id, 5000 FROM media WHERE media_id = $1", old)
    assert await chosen(idle_since_ts=5000) == set()
    assert await chosen(idle_since_ts=5001) == {old}


@WAYS
async def test_each_download_during_a_move_returns_the_right_bytes(own: Installation, options: MoveOptions) -> None:
    contents = {await own.upload(data): data for data in [secrets.token_bytes(20_000 + n) for n in range(60)]}
    moving, wrong, count = True, list[str](), 0

    async def read_on() -> None:
        nonlocal count
        while moving:
            media_id = secrets.choice(list(contents))
            answer = await own.get(own.download_path(media_id))
            count += 1
            if (answer.status, answer.body) != (200, contents[media_id]):
                wrong.append(f"{media_id}: {answer.status}, {len(answer.body)} bytes")

    readers = [asyncio.create_task(read_on()) for _ in range(4)]
    there = await move(own, options=options)
    back = await move(own, BACK, "main", options=options)
    moving = False
    await asyncio.gather(*readers)

    assert (there.moved, back.moved, back.outcomes[MoveOutcome.RETURNED]) == (60, 60, 60)
    assert wrong == []
    assert count > 0


async def test_whoever_read_the_row_before_reads_the_object_still_and_never_calls_it_lost(own: Installation) -> None:
    media_id = await own.upload(b"read before")
    (row,) = await own.rows("SELECT blob_id, store, object_key, size_bytes FROM blob")
    read_before = Blob(*row.values())

    await move(own)

    assert await own.store.read(read_before.object_key, max_bytes=100) == b"read before"
    await let_graces_pass(own)
    await MediaTable(own.repository.foundation.database).mark_missing(read_before, remove_object=True)
    assert await own.value("SELECT state FROM media") == "ready"
    assert await own.value("SELECT missing_ts FROM blob") is None
    assert await own.value("SELECT count(*) FROM object_deletion") == 0
    assert await body_of(own, media_id) == b"read before"


@WAYS
async def test_what_is_deleted_meanwhile_stays_deleted_and_leaves_no_copy(
    own: Installation, options: MoveOptions
) -> None:
    media_id, kept = await own.upload(b"to be deleted"), await own.upload(b"kept")

    async def delete(found: MovableObject) -> None:
        if found.sha256 == hashlib.sha256(b"to be deleted").digest():
            await DeletionTable(own.repository.foundation.database).delete(Mxc(own.server_name, media_id))

    moves = replace(moves_of(own), table=InterruptedTable(own, delete))
    tally = await move(own, moves=moves, options=options)
    await let_graces_pass(own)

    assert (tally.outcomes[MoveOutcome.GONE], tally.outcomes[MoveOutcome.MOVED], tally.failed) == (1, 1, 0)
    assert (await own.get(own.download_path(media_id))).status == 404
    assert await body_of(own, kept) == b"kept"
    assert (len(await keys_in(own.store)), len(await keys_in(cold(own)))) == (0, 1)
    assert await drifts(own) == []


async def test_what_is_quarantined_meanwhile_is_quarantined_where_it_is_then(own: Installation) -> None:
    media_id = await own.upload(b"to be hidden")

    async def hide(_found: MovableObject) -> None:
        path = f"/_synapse/admin/v1/media/quarantine/{own.server_name}/{media_id}"
        assert (await own.request("POST", path, token="operator")).status == 200

    await move(own, moves=replace(moves_of(own), table=InterruptedTable(own, hide)))
    await let_graces_pass(own)

    assert (await own.get(own.download_path(media_id))).status == 404
    copy = await own.request("POST", "/_matrix/media/v3/upload", data=b"to be hidden")
    assert (await own.get(own.download_path(copy.json["content_uri"].rpartition("/")[2]))).status == 404
    assert await drifts(own) == []


async def test_an_upload_of_the_same_content_meanwhile_finds_its_bytes(own: Installation) -> None:
    first = await own.upload(b"the same")
    later: list[str] = []

    async def upload(_found: MovableObject) -> None:
        later.append(await own.upload(b"the same"))

    await move(own, moves=replace(moves_of(own), table=InterruptedTable(own, upload)))
    later.append(await own.upload(b"the same"))
    await let_graces_pass(own)

    assert [await body_of(own, media_id) for media_id in (first, *later)] == [b"the same"] * 3
    assert (len(await keys_in(own.store)), len(await keys_in(cold(own)))) == (1, 1)
    assert await drifts(own) == []


async def test_equal_content_of_the_other_store_is_used_and_thumbnails_are_made_anew(own: Installation) -> None:
    picture = jpeg(300, 200)
    first = await own.upload(picture)
    await move(own)
    second = await own.upload(picture)
    assert (await own.get(own.thumbnail_path(second))).status == 200
    before = await keys_in(own.store)

    tally = await move(own)

    assert tally.outcomes[MoveOutcome.JOINED] == 1
    assert [await body_of(own, media_id) for media_id in (first, second)] == [picture] * 2
    assert (await own.get(own.thumbnail_path(second))).status == 200
    await own.repository.sweeps.outbox.drain()
    assert before <= await keys_in(own.store)
    await let_graces_pass(own)
    assert await own.value("SELECT count(DISTINCT blob_id) FROM media") == 1
    assert await drifts(own) == []


async def test_equal_content_that_comes_to_the_other_store_meanwhile_is_used(own: Installation) -> None:
    media_id = await own.upload(b"twin")

    async def come(_found: MovableObject) -> None:
        await own.rows(
            """INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
               SELECT 'cold', $1, size_bytes, sha256, 'verified', created_ts FROM blob LIMIT 1""",
            twin_key,
        )

    twin_key = f"{cold(own).prefix}/local/2026010100/000000000-{'a' * 32}"
    await cold(own).put(twin_key, [b"twin"], size_bytes=4, metadata={})
    tally = await move(own, moves=replace(moves_of(own), table=InterruptedTable(own, come)))
    await let_graces_pass(own)

    assert tally.outcomes[MoveOutcome.JOINED] == 1
    assert await places(own) == {media_id: [("cold", twin_key)]}
    assert await body_of(own, media_id) == b"twin"
    assert await keys_in(cold(own)) == {twin_key}


@WAYS
async def test_an_object_of_another_length_stays_and_is_told(own: Installation, options: MoveOptions) -> None:
    short, gone, good = [await own.upload(data) for data in (b"as it was", b"will be gone", b"good")]
    before = await places(own)
    await own.store.put(before[short][0][1], [b"short"], size_bytes=5, metadata={})
    await own.store.delete([before[gone][0][1]])

    tally = await move(own, options=options)

    assert (tally.moved, tally.failed) == (1, 2)
    assert any("it has 5 bytes, where the database knows 9" in reason for reason in tally.failures)
    assert any("there is no object" in reason for reason in tally.failures)
    after = await places(own)
    assert (after[short], after[gone]) == (before[short], before[gone])
    assert await own.store.read(before[short][0][1], max_bytes=100) == b"short"
    assert await body_of(own, good) == b"good"
    assert await own.value("SELECT count(*) FROM blob WHERE missing_ts IS NOT NULL") == 0


async def test_an_object_of_the_right_length_with_other_bytes_stays_and_is_told(own: Installation) -> None:
    media_id = await own.upload(b"as it was")
    (place,) = (await places(own))[media_id]
    await own.store.put(place[1], [b"as it is!"], size_bytes=9, metadata={})

    tally = await move(own, options=STREAMED)
    await let_graces_pass(own)

    assert (tally.failed, tally.moved) == (1, 0)
    assert "another SHA-256" in tally.failures[0]
    assert (await places(own))[media_id] == [place]
    assert await keys_in(cold(own)) == set()


async def test_a_move_is_undone_with_the_old_objects_and_later_by_copies(own: Installation) -> None:
    ids = [await own.upload(data) for data in (b"one", b"two", b"three")]
    before = await places(own)
    await move(own)
    undone = await moves_of(own).to_undo(None)
    selection = MoveSelection(from_store="cold", of_move=undone.move_id)

    assert undone.left_to_undo == 3
    back = await move(own, selection, "main", undoes=undone.move_id)
    assert back.outcomes[MoveOutcome.RETURNED] == 3
    assert await places(own) == before
    assert await let_graces_pass(own) == 3
    assert (len(await keys_in(own.store)), len(await keys_in(cold(own)))) == (3, 0)

    await move(own)
    await let_graces_pass(own)
    undone = await moves_of(own).to_undo(None)
    back = await move(own, replace(selection, of_move=undone.move_id), "main", undoes=undone.move_id)
    assert back.outcomes[MoveOutcome.MOVED] == 3
    await let_graces_pass(own)
    assert [await body_of(own, media_id) for media_id in ids] == [b"one", b"two", b"three"]
    assert await drifts(own) == []


async def test_an_old_object_whose_deletion_has_begun_is_not_gone_back_to(own: Installation) -> None:
    media_id = await own.upload(b"back and forth")
    await move(own)
    await own.rows("UPDATE object_deletion SET attempts = 1, next_attempt_ts = 0")

    back = await move(own, BACK, "main")
    await let_graces_pass(own)

    assert back.outcomes[MoveOutcome.MOVED] == 1
    assert await body_of(own, media_id) == b"back and forth"
    assert await drifts(own) == []


async def test_an_adopted_object_is_copied_and_never_deleted(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    document = two_stores(postgres, s3)
    foreign = "local_content/ab/cd/adopted"
    document["stores"]["old"] = {**document["stores"]["main"], "prefix": "synapse", "read_only": True}
    async with installed(settings_for(postgres, s3, **document)) as own:
        key = f"{own.store.prefix}/{foreign}"
        await own.store.put(key, [b"adopted bytes"], size_bytes=13, metadata={})
        media_id = await own.upload(b"a place holder")
        await own.rows(
            """UPDATE blob SET store = 'old', object_key = $1, size_bytes = 13, ownership = 'borrowed', sha256 = NULL,
                   sha256_state = 'unknown'""",
            key,
        )
        await own.store.delete(list(await keys_in(own.store)))

        tally = await move(own, MoveSelection(from_store="old"), "cold")

        assert (tally.adopted, tally.outcomes[MoveOutcome.MOVED]) == (1, 1)
        ((store, new_key),) = (await places(own))[media_id]
        assert (store, new_key.startswith(cold(own).prefix)) == ("cold", True)
        assert await own.value("SELECT ownership FROM blob") == "owned"
        assert await own.value("SELECT count(*) FROM object_deletion") == 0
        metadata = await cold(own).metadata_of(new_key) or {}
        assert (metadata["mxc"], metadata["content_type"]) == (f"mxc://{own.server_name}/{media_id}", "image/png")
        assert await body_of(own, media_id) == b"adopted bytes"

        with pytest.raises(InvalidParamError, match="read_only"):
            await move(own, BACK, "old")
        assert await own.store.read(key, max_bytes=100) == b"adopted bytes"


async def test_two_moves_at_once_are_refused_and_a_lost_lease_stops_one(own: Installation) -> None:
    await own.upload(b"one")

    async def lose(_found: MovableObject) -> None:
        with pytest.raises(LimitExceededError):
            await move(own)
        await own.rows("UPDATE lease SET fence = DEFAULT WHERE name = $1", LEASE)

    with pytest.raises(LeaseLostError):
        await move(own, moves=replace(moves_of(own), table=InterruptedTable(own, lose)))

    assert await own.value("SELECT store FROM blob") == "main"
    await own.rows("DELETE FROM lease WHERE name = $1", LEASE)
    assert (await move(own)).moved == 1


@pytest.mark.parametrize(
    ("from_store", "to_store", "words"),
    [("main", "main", "two stores"), ("nowhere", "main", "no store"), ("main", "nowhere", "no store")],
)
async def test_a_move_needs_two_stores(own: Installation, from_store: str, to_store: str, words: str) -> None:
    with pytest.raises(InvalidParamError, match=words):
        await move(own, MoveSelection(from_store=from_store), to_store)


async def test_nothing_moves_to_a_bucket_of_somebody_else(own: Installation) -> None:
    await own.upload(b"one")
    marker = f"{cold(own).prefix}/installation"
    await cold(own).put(marker, [b"somebody else's\n"], size_bytes=16, metadata={})

    with pytest.raises(InvalidParamError, match="another installation"):
        await move(own)

    assert await own.value("SELECT store FROM blob") == "main"


@WAYS
async def test_objects_move_to_another_bucket(postgres: EmbeddedPostgres, s3: EmbeddedS3, options: MoveOptions) -> None:
    document = two_stores(postgres, s3)
    bucket = f"cold-{secrets.token_hex(6)}"
    document["stores"]["cold"] |= {"bucket": bucket, "prefix": document["stores"]["main"]["prefix"]}
    async with Store("making", StoreConfig.model_validate(document["stores"]["main"])) as making:
        await making._control._client.create_bucket(Bucket=bucket)
    async with installed(settings_for(postgres, s3, **document)) as own:
        media_id, data = await own.upload(b"from bucket to bucket"), b"from bucket to bucket"

        tally = await move(own, options=options)
        await let_graces_pass(own)

        assert (tally.moved, tally.failed) == (1, 0)
        assert (await keys_in(own.store), len(await keys_in(cold(own)))) == (set(), 1)
        assert await body_of(own, media_id) == data
        assert await drifts(own) == []
