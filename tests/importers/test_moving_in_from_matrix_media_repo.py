"""Moving in from stores of the shape that matrix-media-repo 1.3 gives to its own."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from mediarepo.db.deletion import DeletionTable
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.mxc import Mxc
from tests.importers.test_matrix_media_repo import LATER, SCHEMA
from tests.pictures.drawn import corners, encoded
from tests.support.installation import Answer, document_for
from tests.support.moving_in import MovingIn, moving_in

NAME, REMOTE = "mmr.test", "remote.test"
ALICE = f"@alice:{NAME}"
SIZES = [(32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (640, 480, "scale"), (800, 600, "scale")]
OTHER_SIZES = [(32, 32, "scale"), (768, 240, "scale")]
MODES = pytest.mark.parametrize("mode", ["adopt", "copy", "stream"])


def new_id() -> str:
    return secrets.token_hex(20) + "2126122230373941248"


@dataclass
class Store:
    """Writes as matrix-media-repo does: equal content once, thumbnails as thumbnails and as media of nobody."""

    arguments: dict[str, Any]
    bucket: Any
    places: dict[bytes, str] = field(default_factory=dict)
    thumbnails: dict[tuple[str, tuple[int, int, str]], bytes] = field(default_factory=dict)

    async def execute(self, query: str, *arguments: object) -> None:
        connection = await asyncpg.connect(**self.arguments)
        try:
            await connection.execute(query, *arguments)
        finally:
            await connection.close()

    async def add(
        self,
        data: bytes,
        *,
        server_name: str = NAME,
        user: str = ALICE,
        name: str = ".",
        place: str | None = None,
        content_type: str = "image/png",
    ) -> str:
        media_id = new_id()
        place = place or self.places.get(data) or f"{media_id[:2]}/{media_id[2:]}idv2fmt"
        if place not in self.places.values():
            await self.bucket.put(place, data)
        self.places.setdefault(data, place)
        await self.execute(
            "INSERT INTO media VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1700000000001, FALSE, 'objects')",
            *(server_name, media_id, name, content_type, user, hashlib.sha256(data).hexdigest(), len(data), place),
        )
        return media_id

    async def thumbnail(
        self, media_id: str, size: tuple[int, int, str], data: bytes, *, animated: bool = False, origin: str = NAME
    ) -> str:
        """Give a piece of media a thumbnail; gives the id by which that one is media itself."""
        own_id = await self.add(data, user="", name="")
        await self.execute(
            "INSERT INTO thumbnails VALUES ($1, $2, $3, $4, $5, 'image/png', $6, $7, 1700000000001, $8, $9, 'objects')",
            *(origin, media_id, *size, len(data), self.places[data], animated, hashlib.sha256(data).hexdigest()),
        )
        self.thumbnails[media_id, size] = data
        return own_id

    async def hide(self, media_id: str) -> None:
        await self.execute("UPDATE media SET quarantined = TRUE WHERE media_id = $1", media_id)

    async def purge(self, media_id: str, data: bytes) -> None:
        """Remove content; the row of what is hidden stays, and so do the rows that thumbnails have as media."""
        await self.bucket.store.delete([self.places[data]])
        await self.execute("DELETE FROM thumbnails WHERE media_id = $1", media_id)
        await self.execute("DELETE FROM media WHERE media_id = $1 AND NOT quarantined", media_id)
        await self.execute("INSERT INTO reserved_media VALUES ($1, $2, 'purged / deleted')", NAME, media_id)


@pytest.fixture
async def store(new_database: Callable[..., Any], whole_bucket: Any) -> Store:
    for key in [found.key async for found in whole_bucket.store.list("")]:
        await whole_bucket.store.delete([key])
    made = Store(await new_database(), whole_bucket)
    await made.execute(SCHEMA + LATER)
    return made


@asynccontextmanager
async def moving_from(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, folder: Path, *, mode: str, **source: Any
) -> AsyncIterator[MovingIn]:
    address = store.bucket.address
    reach = {"region": address.region, "access_key_id": address.access_key_id}
    theirs = {**reach, "secret_access_key": address.secret_access_key, "read_only": True}
    theirs |= {"endpoint_url": address.endpoint_url, "bucket": address.bucket}
    options = {
        "endpoint": address.endpoint_url.removeprefix("http://"),
        "bucketName": address.bucket,
        "region": address.region,
        "accessKeyId": address.access_key_id,
        "accessSecret": address.secret_access_key,
        "ssl": False,
    }
    words = store.arguments
    dsn = f"postgres://{words['user']}@/{words['database']}?host={words['host']}&port={words['port']}"
    document = {
        "homeservers": [{"name": NAME}],
        "database": {"postgres": dsn},
        "datastores": [{"id": "objects", "type": "s3", "opts": options}],
    }
    (folder / "mmr.yaml").write_text(yaml.safe_dump(document))
    config = {"kind": "matrix-media-repo", "paths": [str(folder / "mmr.yaml")], "remote": "all", "mode": mode, **source}
    stores = {"main": document_for(postgres, s3)["stores"]["main"]}
    stores |= {"theirs": theirs} if mode == "adopt" else {}
    async with moving_in(postgres, s3, folder, NAME, config, stores=stores) as moving:
        yield moving


async def thumbnail(moving: MovingIn, media_id: str, size: tuple[int, int, str]) -> Answer:
    query = f"width={size[0]}&height={size[1]}&method={size[2]}"
    return await moving.own.get(f"/_matrix/client/v1/media/thumbnail/{NAME}/{media_id}?{query}")


@MODES
async def test_thumbnails_that_are_media_of_nobody_stay_behind_and_hidden_rows_are_normal(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, mode: str
) -> None:
    shown, hidden, purged = [await store.add(data) for data in (b"shown", b"hidden", b"purged")]
    theirs = [await store.thumbnail(one, SIZES[0], one.encode()) for one in (shown, hidden, purged)]
    for media_id in (hidden, purged):
        await store.hide(media_id)
    await store.purge(purged, b"purged")

    async with moving_from(store, postgres, s3, tmp_path, mode=mode) as moving:
        figures = await moving.run(status=0)
        items, orphans, summary = await moving.report()
        answers = {one: (await moving.get(NAME, one)).status for one in (shown, hidden, purged, *theirs)}
        media = await moving.media()

    assert answers == {shown: 200, **dict.fromkeys([hidden, purged, *theirs], 404)}
    assert {items[one]["reason"] for one in theirs} == {"thumbnail: it is a thumbnail of other media"}
    assert set(media) == {shown, hidden, purged}
    assert media[shown]["upload_name"] is None
    assert items[purged]["reason"].startswith("hidden_removed")
    assert (figures["rows"], summary["balances"], orphans) == (6, True, [])


@MODES
async def test_all_thumbnails_that_fit_are_taken_without_a_listing_for_each(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path, mode: str
) -> None:
    media = [await store.add(encoded(corners(900 + number, 700), "PNG")) for number in range(8)]
    for number, media_id in enumerate(media):
        for size in (*SIZES, *OTHER_SIZES):
            shared = 0 if size == SIZES[0] else number  # small pictures of different ones are often equal
            await store.thumbnail(media_id, size, f"{shared} {size}".encode())
    await store.execute(
        "INSERT INTO thumbnails SELECT origin, media_id, width, height, method, content_type,"
        " size_bytes, location, creation_ts, TRUE, sha256_hash, datastore_id FROM thumbnails WHERE width = 96"
    )
    missing = await store.add(b"its thumbnail is lost")
    await store.thumbnail(missing, SIZES[1], b"lost")
    await store.bucket.store.delete([store.places.pop(b"lost")])

    async with moving_from(store, postgres, s3, tmp_path, mode=mode, thumbnails=True) as moving:
        figures = await moving.run()
        again = await moving.run()
        answers = {
            (media_id, size): (await thumbnail(moving, media_id, size)).body for media_id in media for size in SIZES
        }

    assert figures["thumbnails"] == {"taken": 48, "other_size": 16, "not_found": 1}
    assert again["thumbnails"] == {"here": 48, "other_size": 16, "not_found": 1}
    assert answers == {key: data for key, data in store.thumbnails.items() if key in answers}
    assert figures["lists"] <= 4


async def test_what_users_uploaded_anew_is_media_even_where_it_is_somebodys_thumbnail(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    photo = await store.add(encoded(corners(900, 700), "PNG"))
    await store.thumbnail(photo, SIZES[1], b"small")

    async with moving_from(store, postgres, s3, tmp_path, mode="adopt", thumbnails=True) as moving:
        await moving.run()
        same = await store.add(b"small", name="small.png")
        await moving.run()
        deletion_table = moving.own.repository.foundation
        blobs = await moving.own.value("SELECT count(*) FROM thumbnail WHERE blob_id = source_blob_id")
        await _delete(deletion_table, Mxc(NAME, photo))
        kept = await moving.get(NAME, same)
        await _delete(deletion_table, Mxc(NAME, same))
        left = await moving.own.value("SELECT count(*) FROM blob")

    assert (kept.status, kept.body, blobs, left) == (200, b"small", 0, 0)


async def _delete(foundation: Any, mxc: Mxc) -> None:
    assert await DeletionTable(foundation.database).delete(mxc)


async def test_equal_content_is_copied_once(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    first = [await store.add(b"equal") for _ in range(20)]
    first += [await store.add(b"equal", place=f"elsewhere{number}") for number in range(3)]
    await store.bucket.put("elsewhere0", b"equal")
    await store.bucket.put("elsewhere1", b"equal")
    await store.bucket.put("elsewhere2", b"equal")

    async with moving_from(store, postgres, s3, tmp_path, mode="copy") as moving:
        await moving.run()
        later = await store.add(b"equal")
        await moving.run()
        objects = await moving.own.object_keys()
        media = await moving.media()
        answers = {(await moving.get(NAME, one)).body for one in (*first, later)}

    assert (len(objects), answers) == (1, {b"equal"})
    assert len({row["blob_id"] for row in media.values()}) == 1


async def test_rows_without_bytes_cost_no_listing_each(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    for number in range(30):
        media_id = await store.add(f"{number}".encode())
        await store.hide(media_id)
        await store.purge(media_id, f"{number}".encode())
    await store.add(b"there")

    async with moving_from(store, postgres, s3, tmp_path, mode="stream") as moving:
        figures = await moving.run()

    assert (figures["rows"], figures["skipped"], figures["committed"]) == (31, 30, 1)
    assert figures["lists"] == 2


async def test_what_is_hidden_at_the_source_later_is_hidden_here_with_read_through(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    before, after = await store.add(b"before"), await store.add(encoded(corners(90, 70), "PNG"))

    async with moving_from(store, postgres, s3, tmp_path, mode="stream", read_through=True) as moving:
        first = [(await moving.get(NAME, one)).status for one in (before, after)]
        await store.hide(before)
        await store.hide(after)
        hidden = (await moving.get(NAME, before)).status
        hidden_thumbnail = (await thumbnail(moving, after, SIZES[0])).status
        legacy = (await moving.legacy(NAME, after)).status

    assert first == [200, 200]
    assert (hidden, hidden_thumbnail, legacy) == (404, 404, 404)


async def test_what_is_here_is_served_while_the_source_is_down(
    store: Store, postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    media_id = await store.add(b"here")

    async with moving_from(store, postgres, s3, tmp_path, mode="stream", read_through=True) as moving:
        await moving.get(NAME, media_id)
        await store.execute("ALTER TABLE media RENAME TO gone")
        answers = [(await moving.get(NAME, media_id)).body for _ in range(2)]

    assert answers == [b"here", b"here"]
