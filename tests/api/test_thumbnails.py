import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.pictures.drawn import animated, corners, encoded, hostile, jpeg, oriented
from tests.pictures.filmed import sample
from tests.support.installation import Answer, Installation, installed, settings_for


def picture(answer: Answer) -> Image.Image:
    assert answer.status == 200, answer
    return Image.open(io.BytesIO(answer.body))


async def object_count(installation: Installation) -> int:
    return len(await installation.object_keys())


@pytest.mark.parametrize(
    ("width", "height", "method", "size"),
    [
        (32, 32, "crop", (32, 32)),
        (96, 96, "crop", (96, 96)),
        (320, 240, "scale", (320, 213)),
        (640, 480, "scale", (640, 427)),
        (800, 600, "scale", (800, 533)),
        (50, 50, "crop", (96, 96)),
        (5000, 5000, "scale", (800, 533)),
        (99_999_999_999, 1, "scale", (800, 533)),
    ],
)
async def test_a_thumbnail_has_the_next_larger_configured_size(
    shared: Installation, width: int, height: int, method: str, size: tuple[int, int]
) -> None:
    media_id = await shared.upload(oriented(1200, 800, 6), content_type="image/jpeg")

    answer = await shared.get(shared.thumbnail_path(media_id, width, height, method))

    assert picture(answer).size == size
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Content-Disposition"] == "inline; filename=thumbnail.jpg"
    assert int(answer.headers["Content-Length"]) == len(answer.body)


async def test_all_sizes_come_from_one_job_and_one_object(shared: Installation) -> None:
    media_id = await shared.upload(jpeg(1001, 801))
    before = await object_count(shared)

    sizes = [(32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (640, 480, "scale"), (800, 600, "scale")]
    answers = await asyncio.gather(*(shared.get(shared.thumbnail_path(media_id, *size)) for size in sizes * 4))

    assert {answer.status for answer in answers} == {200}
    assert await object_count(shared) == before + 1
    assert await shared.value("SELECT count(*) FROM object_deletion") == 0


async def test_the_method_is_scale_unless_given(shared: Installation) -> None:
    media_id = await shared.upload(jpeg(1000, 800))
    path = f"/_matrix/client/v1/media/thumbnail/{shared.server_name}/{media_id}?width=300&height=200"

    assert picture(await shared.get(path)).size == (300, 240)


async def test_a_png_stays_one_and_conditions_hold(shared: Installation) -> None:
    media_id = await shared.upload(encoded(corners(900, 700), "PNG"))
    path = shared.thumbnail_path(media_id)
    first = await shared.get(path)

    again = await shared.get(path, headers={"If-None-Match": first.headers["ETag"]})
    head = await shared.request("HEAD", path)

    assert first.headers["Content-Type"] == "image/png"
    assert (again.status, again.body) == (304, b"")
    assert head.headers["Content-Length"] == first.headers["Content-Length"]
    assert (await shared.get(shared.thumbnail_path(media_id, 96, 96))).headers["ETag"] != first.headers["ETag"]


async def test_a_small_bare_original_is_sent_as_it_is(shared: Installation) -> None:
    data = encoded(corners(60, 40), "PNG")
    media_id = await shared.upload(data, content_type="whatever/it-says")

    answer = await shared.get(shared.thumbnail_path(media_id, 96, 96))

    assert answer.body == data
    assert answer.headers["Content-Type"] == "image/png"


async def test_a_small_original_with_more_in_it_is_not(shared: Installation) -> None:
    data = jpeg(60, 40, comment=b"where I live")
    media_id = await shared.upload(data)

    answer = await shared.get(shared.thumbnail_path(media_id, 96, 96))

    assert picture(answer).size == (60, 40)
    assert b"where I live" not in answer.body


async def test_animation_is_given_only_to_those_who_ask(shared: Installation) -> None:
    media_id = await shared.upload(animated("GIF", 200, 200, 4))

    still = await shared.get(shared.thumbnail_path(media_id))
    moving = await shared.get(shared.thumbnail_path(media_id, query="&animated=true"))
    asked_not_to = await shared.get(shared.thumbnail_path(media_id, query="&animated=false"))

    assert (moving.headers["Content-Type"], getattr(picture(moving), "n_frames", 1)) == ("image/webp", 4)
    assert still.body == asked_not_to.body
    assert still.headers["Content-Type"] == "image/png"
    assert still.headers["ETag"] != moving.headers["ETag"]


async def test_animated_of_a_still_picture_is_still(shared: Installation) -> None:
    media_id = await shared.upload(jpeg(500, 500))

    answer = await shared.get(shared.thumbnail_path(media_id, query="&animated=true"))

    assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("name", sorted(hostile()))
async def test_a_hostile_file_costs_nobody_anything(shared: Installation, name: str) -> None:
    media_id = await shared.upload(hostile()[name])
    other = await shared.upload(b"other media")

    answers = await asyncio.gather(
        shared.get(shared.thumbnail_path(media_id)),
        shared.get(shared.download_path(other)),
        shared.get(shared.download_path(media_id)),
    )

    assert answers[0].status in {200, 400, 413}
    if answers[0].status != 200:
        assert answers[0].json["errcode"] == {400: "M_UNKNOWN", 413: "M_TOO_LARGE"}[answers[0].status]
        assert b"<script>" not in answers[0].body
    assert answers[1].body == b"other media"
    assert answers[2].body == hostile()[name]


async def test_what_cannot_be_thumbnailed_is_not_tried_again(shared: Installation) -> None:
    media_id = await shared.upload(b"%PDF-1.4 not a picture", content_type="image/png")
    jobs = b'mediarepo_thumbnail_jobs_total{outcome="refused"}'

    async def refused_so_far() -> str:
        lines = (await shared.get("/metrics")).body.split(b"\n")
        return b"".join(line for line in lines if line.startswith(jobs)).decode()

    answers = [await shared.get(shared.thumbnail_path(media_id))]
    after_one = await refused_so_far()
    answers += [await shared.get(shared.thumbnail_path(media_id, n, n)) for n in (32, 96, 500)]

    assert {(answer.status, answer.json["errcode"]) for answer in answers} == {(400, "M_UNKNOWN")}
    assert len({answer.json["error"] for answer in answers}) == 1
    assert await refused_so_far() == after_one
    assert await shared.value("SELECT count(*) FROM thumbnail_failure WHERE reason LIKE '%unsupported_format'") > 0


async def test_the_legacy_path_gives_none_since_the_freeze_whatever_token_comes(shared: Installation) -> None:
    media_id = await shared.upload(jpeg(300, 300))
    path = f"/_matrix/media/r0/thumbnail/{shared.server_name}/{media_id}?width=32&height=32&method=crop"

    for token in ("", None):
        answer = await shared.get(path, token=token)
        assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")


async def test_lost_thumbnails_are_made_again(shared: Installation) -> None:
    media_id = await shared.upload(jpeg(700, 701))
    first = await shared.get(shared.thumbnail_path(media_id))
    pack = await shared.value(
        "SELECT p.object_key FROM media m JOIN blob p ON p.parent_blob_id = m.blob_id WHERE media_id = $1", media_id
    )
    await shared.store.delete([pack])

    second = await shared.get(shared.thumbnail_path(media_id))

    assert second.body == first.body
    assert (await shared.get(shared.download_path(media_id))).status == 200


async def test_unknown_media_has_no_thumbnail(shared: Installation) -> None:
    assert (await shared.get(shared.thumbnail_path("absent"))).json["errcode"] == "M_NOT_FOUND"


@pytest.fixture
async def dynamic(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> AsyncIterator[Installation]:
    thumbnails = {"workers": 1, "dynamic_sizes": True, "dynamic_sizes_per_media": 7}
    async with installed(settings_for(postgres, s3, thumbnails=thumbnails)) as running:
        yield running


async def test_dynamic_sizes_are_exactly_what_was_asked_and_bounded(dynamic: Installation) -> None:
    media_id = await dynamic.upload(jpeg(1000, 1000))
    sizes = [picture(await dynamic.get(dynamic.thumbnail_path(media_id, n, n))).size for n in range(200, 212)]

    assert sizes[:7] == [(n, n) for n in range(200, 207)]
    assert set(sizes[7:]) == {(240, 240)}
    assert picture(await dynamic.get(dynamic.thumbnail_path(media_id, 203, 203))).size == (203, 203)


async def test_a_source_over_the_limit_is_413(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3, thumbnails={"workers": 1, "max_source_bytes": 1000})) as own:
        media_id = await own.upload(jpeg(1000, 1000))

        answer = await own.get(own.thumbnail_path(media_id))

        assert (answer.status, answer.json["errcode"]) == (413, "M_TOO_LARGE")


async def test_videos_have_thumbnails_where_they_are_switched_on(postgres: EmbeddedPostgres, s3: EmbeddedS3) -> None:
    async with installed(settings_for(postgres, s3, thumbnails={"workers": 1, "video": True})) as own:
        media_id = await own.upload(sample(), content_type="video/mp4")
        answer = await own.get(own.thumbnail_path(media_id, 96, 96, "crop"))

    assert picture(answer).size == (96, 96)
    assert answer.headers["Content-Type"] == "image/jpeg"
