"""What media are, for those who may have them."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import oriented
from tests.support.installation import Answer
from tests.support.tenants import OPERATOR, A, B, Tenants, two_tenants, user_of

PICTURE = oriented(1200, 800, 6)
PATHS = ("/_matrix/media/unstable/info", "/_matrix/media/unstable/io.t2bot.media/info")


@pytest.fixture(scope="module")
async def tenants(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Tenants]:
    thumbnails = {"workers": 1, "media_info": True}
    async with two_tenants(postgres, s3, thumbnails=thumbnails, admin={"token": OPERATOR}) as running:
        yield running


async def info(tenants: Tenants, media: str, *, at: str = A, base: str = PATHS[0], query: str = "") -> Answer:
    return await tenants.own.get(f"{base}/{media}{query}", token=user_of(at), host=at)


@pytest.mark.parametrize("base", PATHS)
async def test_a_picture_is_described_with_its_blurhash_and_thumbnails(tenants: Tenants, base: str) -> None:
    media = await tenants.upload(A, PICTURE)

    answer = await info(tenants, media, base=base)

    document = answer.json
    assert answer.status == 200
    assert (document["content_uri"], document["size"]) == (f"mxc://{media}", len(PICTURE))
    assert (document["width"], document["height"]) == (1200, 800)
    assert document["hashes"] == {"sha256": hashlib.sha256(PICTURE).hexdigest()}
    assert len(document["xyz.amorgan.blurhash"]) == 28
    assert [(one["width"], one["height"], one["method"], one["ready"]) for one in document["thumbnails"]] == [
        (32, 32, "crop", True),
        (96, 96, "crop", True),
        (320, 240, "scale", True),
        (640, 480, "scale", True),
        (800, 600, "scale", True),
    ]


async def test_what_is_no_picture_is_described_by_what_is_known(tenants: Tenants) -> None:
    media = await tenants.upload(A, b"no picture")

    answers = [await info(tenants, media) for _ in range(2)]

    assert answers[0].json == answers[1].json
    assert set(answers[0].json) == {"content_uri", "content_type", "size", "hashes"}


async def test_pictures_that_were_thumbnailed_before_are_looked_at_again(tenants: Tenants) -> None:
    media = await tenants.upload(A, PICTURE + b"\0")
    await info(tenants, media)
    await tenants.own.rows("DELETE FROM picture RETURNING 1")
    objects = len(await tenants.own.object_keys())

    answer = await info(tenants, media)

    queued = await tenants.own.value("SELECT count(*) FROM object_deletion")
    assert answer.json["width"] == 1200
    assert len(await tenants.own.object_keys()) - queued <= objects


async def test_hidden_media_are_unknown_as_for_downloads(tenants: Tenants) -> None:
    media = await tenants.upload(A, PICTURE)
    seen = [(await info(tenants, media, at=at)).status for at in (A, B)]
    await tenants.do(A, "quarantine", media)
    hidden = [await info(tenants, media, at=at) for at in (A, B)]
    downloads = [await tenants.status(media, at=at) for at in (A, B)]

    assert seen == [200, 200]
    assert [answer.status for answer in hidden] == downloads
    assert hidden[0].status == 404
    assert hidden[0].json == {"errcode": "M_NOT_FOUND", "error": (await info(tenants, f"{A}/unknown")).json["error"]}


async def test_deleted_and_foreign_media_are_unknown(tenants: Tenants) -> None:
    media = await tenants.upload(A, PICTURE)
    await tenants.do(A, "delete", media)
    await tenants.ask(A, "DELETE", f"/media/{media}")

    assert (await info(tenants, media)).status == 404
    assert (await info(tenants, "far.test/media", query="?allow_remote=false")).status == 404


async def test_nobody_without_a_token_is_told(tenants: Tenants) -> None:
    media = await tenants.upload(A, PICTURE)

    answer = await tenants.own.get(f"{PATHS[0]}/{media}", token=None, host=A)

    assert (answer.status, answer.json["errcode"]) == (401, "M_MISSING_TOKEN")


async def test_bad_addresses_are_refused(tenants: Tenants) -> None:
    answers = [await info(tenants, media) for media in ("%00/x", f"{A}/%2F", f"{A}/..")]

    assert [(answer.status, answer.json["errcode"]) for answer in answers[:2]] == [(400, "M_INVALID_PARAM")] * 2
    assert answers[2].status in {400, 404}


async def test_there_is_no_such_endpoint_where_it_is_off(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with two_tenants(postgres, s3, thumbnails={"workers": 1}) as running:
        media = await running.upload(A, PICTURE)
        answer = await info(running, media)

        assert (answer.status, answer.json["errcode"]) == (404, "M_UNRECOGNIZED")
        assert await running.own.value("SELECT count(*) FROM picture") == 0
