import asyncio
import secrets
from collections.abc import AsyncIterator
from urllib.parse import quote, unquote

import pytest

from tests.pictures.drawn import corners, encoded
from tests.support.installation import Installation

MIB = 1024 * 1024


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, 10_000, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20_000_000])
async def test_what_is_uploaded_comes_back_byte_for_byte(shared: Installation, size: int) -> None:
    data = secrets.token_bytes(size)

    media_id = await shared.upload(data)
    answer = await shared.get(shared.download_path(media_id))

    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["Content-Length"] == str(size)


@pytest.mark.parametrize("size", [0, 10_000, 8 * MIB, 17 * MIB])
async def test_a_chunked_body_needs_no_content_length(shared: Installation, size: int) -> None:
    data = secrets.token_bytes(size)

    media_id = await shared.upload(in_pieces(data, 100_000))

    assert (await shared.get(shared.download_path(media_id))).body == data


@pytest.mark.parametrize("version", ["v3", "r0", "v1"])
async def test_every_version_of_the_upload_path_works(shared: Installation, version: str) -> None:
    answer = await shared.request("POST", f"/_matrix/media/{version}/upload", data=b"x")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"


async def test_type_and_name_come_back_as_given(shared: Installation) -> None:
    media_id = await shared.upload(b"x", content_type="img/png", query="?filename=name%20with%20spaces")

    answer = await shared.get(shared.download_path(media_id))

    assert answer.headers["Content-Type"] == "img/png"
    assert (
        answer.headers["Content-Disposition"]
        == "attachment; filename=\"name with spaces\"; filename*=utf-8''name%20with%20spaces"
    )


async def test_no_type_means_octet_stream_and_no_name_means_none(shared: Installation) -> None:
    media_id = await shared.upload(b"x", content_type=None)

    answer = await shared.get(shared.download_path(media_id))

    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


async def test_the_path_can_give_another_name(shared: Installation) -> None:
    media_id = await shared.upload(b"x", query="?filename=old.png")

    answer = await shared.get(shared.download_path(media_id) + "/%E2%98%95.png")

    assert answer.headers["Content-Disposition"] == "inline; filename=\"_.png\"; filename*=utf-8''%E2%98%95.png"


@pytest.mark.parametrize(
    "name", ["ascii", "name with spaces", "name;with;semicolons", "\U0001f414", 'q"q', "\u202ertl", "a\r\nb"]
)
async def test_any_name_survives(shared: Installation, name: str) -> None:
    media_id = await shared.upload(b"x", query=f"?filename={quote(name, safe='')}")
    header = (await shared.get(shared.download_path(media_id))).headers["Content-Disposition"]

    given = header.rpartition("filename")[2].removeprefix("*=utf-8''").removeprefix("=")
    assert unquote(given) == name
    assert "\r" not in header


async def test_a_slash_behind_the_media_id_is_an_empty_name(shared: Installation) -> None:
    media_id = await shared.upload(b"x", query="?filename=a.png")

    answer = await shared.get(shared.download_path(media_id) + "/")

    assert answer.headers["Content-Disposition"] == "inline; filename=a.png"


async def test_equal_bytes_get_an_address_each_and_one_object(shared: Installation) -> None:
    data = secrets.token_bytes(1000)

    first, second = await shared.upload(data, content_type="a/a"), await shared.upload(data, content_type="b/b")

    assert first != second
    blobs = await shared.rows("SELECT DISTINCT blob_id FROM media WHERE media_id = ANY($1::text[])", [first, second])
    assert len(blobs) == 1
    assert (await shared.get(shared.download_path(first))).headers["Content-Type"] == "a/a"
    assert (await shared.get(shared.download_path(second))).headers["Content-Type"] == "b/b"


async def test_head_tells_what_get_would(shared: Installation) -> None:
    media_id = await shared.upload(b"0123456789", query="?filename=a.png")
    for path in (shared.download_path(media_id), shared.download_path(media_id) + "/b.png"):
        whole, head = await shared.get(path), await shared.request("HEAD", path)
        same = ("Content-Length", "Content-Type", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges")

        assert head.status == 200
        assert head.body == b""
        assert {name: head.headers[name] for name in same} == {name: whole.headers[name] for name in same}


@pytest.mark.parametrize("byte_range", ["bytes=0-2", "bytes=5000-"])
async def test_head_knows_no_ranges(shared: Installation, byte_range: str) -> None:
    path = shared.download_path(await shared.upload(b"0123456789"))

    head = await shared.request("HEAD", path, headers={"Range": byte_range})

    assert (head.status, head.headers["Content-Length"]) == (200, "10")
    assert "Content-Range" not in head.headers


@pytest.mark.parametrize("large", [False, True])
async def test_a_range_brings_just_those_bytes(shared: Installation, large: bool) -> None:
    data = secrets.token_bytes(9 * MIB if large else 1000)
    media_id = await shared.upload(data)
    path, size = shared.download_path(media_id), len(data)
    for header, first, last in [
        ("0-0", 0, 0),
        ("5-9", 5, 9),
        (f"{size - 3}-", size - 3, size - 1),
        ("-7", size - 7, size - 1),
    ]:
        answer = await shared.get(path, headers={"Range": f"bytes={header}"})

        assert answer.status == 206
        assert answer.body == data[first : last + 1]
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert answer.headers["Content-Length"] == str(last - first + 1)


async def test_a_range_past_the_end_is_416_with_the_size(shared: Installation) -> None:
    media_id = await shared.upload(b"0123456789")

    answer = await shared.get(shared.download_path(media_id), headers={"Range": "bytes=10-"})

    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */10"
    assert answer.json["errcode"] == "M_UNKNOWN"


async def test_if_range_with_another_tag_brings_the_whole(shared: Installation) -> None:
    media_id = await shared.upload(b"0123456789")
    path = shared.download_path(media_id)
    etag = (await shared.get(path)).headers["ETag"]

    assert (await shared.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})).status == 206
    assert (await shared.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).body == b"0123456789"


async def test_a_client_that_has_it_gets_304_but_only_after_the_checks(shared: Installation) -> None:
    media_id = await shared.upload(b"0123456789")
    path = shared.download_path(media_id)
    etag = (await shared.get(path)).headers["ETag"]

    fresh = await shared.get(path, headers={"If-None-Match": f'"x", W/{etag}'})
    unknown = await shared.get(path, headers={"If-None-Match": etag}, token=None)
    frozen = await shared.get(shared.legacy_path(media_id), headers={"If-None-Match": etag}, token=None)

    assert (fresh.status, fresh.body, fresh.headers["ETag"]) == (304, b"", etag)
    assert "Cache-Control" in fresh.headers
    assert unknown.status == 401
    assert frozen.status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("thumbnail", [False, True])
async def test_preconditions_that_are_not_met_give_412(shared: Installation, method: str, thumbnail: bool) -> None:
    media_id = await shared.upload(encoded(corners(40, 40), "PNG"))
    path = shared.thumbnail_path(media_id) if thumbnail else shared.download_path(media_id)
    etag = (await shared.get(path)).headers["ETag"]
    old = "Thu, 01 Jan 1970 00:00:00 GMT"

    wanted = [{"If-Match": etag}, {"If-Match": "*"}, {"If-Match": etag, "If-Unmodified-Since": old}]
    unwanted = [{"If-Match": '"x"'}, {"If-Match": f"W/{etag}"}, {"If-Unmodified-Since": old}]
    unwanted.append({"If-Match": '"x"', "If-None-Match": etag, "Range": "bytes=0-1"})

    assert [(await shared.request(method, path, headers=one)).status for one in wanted] == [200] * 3
    answers = [await shared.request(method, path, headers=one) for one in unwanted]
    assert [answer.status for answer in answers] == [412] * 4
    assert method == "HEAD" or answers[0].json["errcode"] == "M_UNKNOWN"


async def test_a_range_of_a_thumbnail_is_a_part_of_it(shared: Installation) -> None:
    path = shared.thumbnail_path(await shared.upload(encoded(corners(400, 400), "PNG")))
    whole, part = await shared.get(path), await shared.get(path, headers={"Range": "bytes=5-20"})

    assert (part.status, part.body) == (206, whole.body[5:21])
    assert part.headers["Content-Range"] == f"bytes 5-20/{len(whole.body)}"
    assert part.headers["ETag"] == whole.headers["ETag"]


async def test_media_never_changes_so_neither_does_its_tag(shared: Installation) -> None:
    media_id = await shared.upload(b"0123456789")
    answers = [await shared.get(shared.download_path(media_id)) for _ in range(3)]

    assert len({answer.headers["ETag"] for answer in answers}) == 1
    assert answers[0].headers["Cache-Control"] == "private, max-age=86400, immutable"


async def test_many_uploads_at_once_all_arrive(shared: Installation) -> None:
    bodies = [secrets.token_bytes(50_000) for _ in range(40)]

    media_ids = await asyncio.gather(*(shared.upload(body) for body in bodies))
    answers = await asyncio.gather(*(shared.get(shared.download_path(media_id)) for media_id in media_ids))

    assert [answer.body for answer in answers] == bodies


async def test_objects_say_who_they_are(shared: Installation) -> None:
    data = secrets.token_bytes(100)
    media_id = await shared.upload(data)
    row = (await shared.rows("SELECT b.* FROM media JOIN blob b USING (blob_id) WHERE media_id = $1", media_id))[0]

    assert row["object_key"].startswith(shared.store.prefix + "/local/")
    async with shared.store.open(row["object_key"]) as stored:
        assert await stored.read() == data


async def test_quarantine_of_a_hash_hides_media_at_once_and_protection_exempts(shared: Installation) -> None:
    first, second = await shared.upload(b"bad bytes"), await shared.upload(b"bad bytes")
    await shared.mark(second, "protection")
    await shared.rows(
        """INSERT INTO quarantined_hash (sha256, quarantined_by, created_ts)
           SELECT sha256, '@mod:x', 1 FROM media JOIN blob USING (blob_id) WHERE media_id = $1 RETURNING 1""",
        first,
    )
    etag = (await shared.get(shared.download_path(second))).headers["ETag"]

    assert (await shared.get(shared.download_path(first))).status == 404
    assert (await shared.get(shared.download_path(first), headers={"If-None-Match": "*"})).status == 404
    assert (await shared.get(shared.download_path(second), headers={"If-None-Match": etag})).status == 304
