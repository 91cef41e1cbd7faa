"""Sizes and BlurHashes of pictures, where they are kept."""

from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import oriented
from tests.support.tenants import OPERATOR, A, Tenants, two_tenants, user_of

PICTURE = oriented(1200, 800, 6)


@pytest.fixture
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    thumbnails = {"workers": 1, "blurhash": True}
    async with two_tenants(postgres, s3, thumbnails=thumbnails, admin={"token": OPERATOR}) as running:
        yield running


async def thumbnail(tenants: Tenants, media: str) -> int:
    path = f"/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=crop"
    return (await tenants.own.get(path, token=user_of(A), host=A)).status


async def test_the_admin_api_tells_the_size_and_blurhash_of_what_was_thumbnailed(tenants: Tenants) -> None:
    media = await tenants.upload(A, PICTURE)
    before = (await tenants.ask("", "GET", f"/media/{media}")).json
    status = await thumbnail(tenants, media)
    after = (await tenants.ask("", "GET", f"/media/{media}")).json

    assert status == 200
    assert [before[name] for name in ("width", "height", "blurhash")] == [None, None, None]
    assert (after["width"], after["height"], len(after["blurhash"])) == (1200, 800, 28)


async def test_equal_content_has_them_once_and_they_go_with_it(tenants: Tenants) -> None:
    media = [await tenants.upload(A, PICTURE) for _ in range(2)]
    statuses = [await thumbnail(tenants, one) for one in media]
    kept = await tenants.own.value("SELECT count(*) FROM picture")
    told = [(await tenants.ask("", "GET", f"/media/{one}")).json["blurhash"] for one in media]
    await tenants.own.rows("UPDATE media SET state = 'tombstone', blob_id = NULL RETURNING 1")
    await tenants.own.rows("DELETE FROM blob WHERE parent_blob_id IS NOT NULL RETURNING 1")
    await tenants.own.rows("DELETE FROM blob RETURNING 1")

    assert statuses == [200, 200]
    assert kept == 1
    assert told[0] == told[1]
    assert await tenants.own.value("SELECT count(*) FROM picture") == 0


async def test_nothing_is_kept_where_it_is_off(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with two_tenants(postgres, s3, thumbnails={"workers": 1}, admin={"token": OPERATOR}) as running:
        status = await thumbnail(running, await running.upload(A, PICTURE))

        assert status == 200
        assert await running.own.value("SELECT count(*) FROM picture") == 0
