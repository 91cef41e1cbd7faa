"""Videos, by the extra `video`, through the real sandboxed worker."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from mediarepo.images import ffmpeg, video
from mediarepo.images.color_profiles import HLG, PQ, HighRange, tone_map
from mediarepo.images.errors import PictureError
from mediarepo.images.formats import PictureFormat
from mediarepo.images.worker_pool import ImageDimensions, Rendered
from tests.pictures.drawn import BLUE, GREEN, RED, WHITE, corners
from tests.pictures.filmed import IDENTITY, film, hostile_films, sample, turned
from tests.pictures.screen import Screen, close, quarters
from tests.unit.images.test_rendering import looks_like

FILMS = {
    "H.264 in MP4": ("mp4", "libx264", "yuv420p"),
    "H.264, 10 bits": ("mp4", "libx264", "yuv420p10le"),
    "HEVC in MP4": ("mp4", "libx265", "yuv420p"),
    "AV1 in MP4": ("mp4", "libsvtav1", "yuv420p"),
    "MPEG-4 in QuickTime": ("mov", "mpeg4", "yuv420p"),
    "ProRes in QuickTime": ("mov", "prores_ks", "yuv422p10le"),
    "VP8 in WebM": ("webm", "libvpx", "yuv420p"),
    "VP9 in WebM": ("webm", "libvpx-vp9", "yuv420p"),
    "AV1 in WebM": ("webm", "libsvtav1", "yuv420p"),
    "H.264 in Matroska": ("matroska", "libx264", "yuv420p"),
    "VP8 in Ogg": ("ogg", "libvpx", "yuv420p"),
}


@pytest.fixture(scope="module")
async def screen() -> AsyncIterator[Screen]:
    made = Screen(video=True)
    async with made.pool:
        yield made


@pytest.mark.parametrize("kind", FILMS)
async def test_a_video_is_shown_by_its_first_frame(screen: Screen, kind: str) -> None:
    picture = await screen.largest(sample(*FILMS[kind]))

    assert picture.size == (320, 240)
    assert looks_like(picture)


def test_making_videos_leaves_nobody_real_time_priority() -> None:
    sample("mp4", "libsvtav1")

    assert os.sched_getscheduler(0) == os.SCHED_OTHER


async def test_a_videos_size_is_measured_upright(screen: Screen) -> None:
    wide = await screen.measure(sample("webm", "libvpx"))
    tall = await screen.measure(turned(sample(), (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)))

    assert wide == ImageDimensions(PictureFormat.MATROSKA, 320, 240)
    assert tall == ImageDimensions(PictureFormat.MP4, 240, 320)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (IDENTITY, (RED, GREEN, BLUE, WHITE)),
        ((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30), (BLUE, RED, WHITE, GREEN)),
        ((-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), (WHITE, BLUE, GREEN, RED)),
        ((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), (GREEN, WHITE, RED, BLUE)),
        ((-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), (GREEN, RED, WHITE, BLUE)),
    ],
    ids=["upright", "a quarter clockwise", "upside down", "a quarter back", "mirrored"],
)
async def test_videos_are_turned_as_they_declare(
    screen: Screen, matrix: tuple[int, ...], expected: tuple[tuple[int, int, int], ...]
) -> None:
    picture = await screen.largest(turned(sample(), matrix))

    assert close(quarters(picture), expected)


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["BT.709", "BT.601", "BT.2020"])
async def test_colours_follow_the_declared_matrix(screen: Screen, matrix: int) -> None:
    picture = await screen.largest(film("matroska", "libx264", [corners(320, 240)], tagged=matrix))

    assert close(quarters(picture), (RED, GREEN, BLUE, WHITE))


@pytest.mark.parametrize("transfer", [PQ, HLG])
async def test_hdr_is_mapped_as_in_pictures(screen: Screen, transfer: int) -> None:
    stored = Image.new("RGB", (320, 240), (150, 130, 110))
    expected = tone_map(stored, HighRange(9, transfer)).getpixel((160, 120))

    picture = await screen.largest(film("matroska", "libx264", [stored], tagged=9, curve=(9, transfer)))

    assert isinstance(expected, tuple)
    assert max(abs(value - wanted) for value, wanted in zip(expected, (150, 130, 110), strict=True)) > 10
    assert close(quarters(picture)[:1], ((int(expected[0]), int(expected[1]), int(expected[2])),))


async def test_a_fade_in_is_skipped(screen: Screen) -> None:
    frames = [Image.new("RGB", (320, 240)), corners(320, 240).point(lambda value: value // 12), corners(320, 240)]

    assert looks_like(await screen.largest(film("mp4", "libx264", frames)))


async def test_a_film_that_stays_dark_is_shown_by_its_brightest_frame(screen: Screen) -> None:
    frames = [Image.new("RGB", (320, 240), (value, 0, 0)) for value in (0, 60, 10)]
    red, green, _ = quarters(await screen.largest(film("mp4", "libx264", frames)))[0]

    assert red > 40 > green


async def test_videos_are_refused_where_they_are_not_switched_on() -> None:
    plain = Screen(video=False)
    async with plain.pool:
        for data in (sample(), sample("webm", "libvpx"), sample("ogg", "libvpx")):
            with pytest.raises(PictureError, match="unsupported_format"):
                await plain.render(data)
        (pid,) = plain.pool.pids

        assert "libavcodec" not in Path(f"/proc/{pid}/maps").read_text()


async def test_frames_above_the_limit_are_refused() -> None:
    small = Screen(video=True, max_pixels_video=320 * 240 - 1)
    async with small.pool:
        with pytest.raises(PictureError, match="too_many_pixels"):
            await small.render(sample())


@pytest.mark.parametrize("name", sorted(hostile_films()))
async def test_no_video_takes_the_worker_over_its_limits(screen: Screen, name: str) -> None:
    assert isinstance(await screen.withstands(hostile_films()[name]), Rendered | PictureError)


async def test_a_worker_that_decodes_videos_has_one_thread_and_all_fences(screen: Screen) -> None:
    await screen.render(sample("mp4", "libsvtav1"))
    (pid,) = screen.pool.pids
    status = Path(f"/proc/{pid}/status").read_text()

    assert "Threads:\t1\n" in status
    assert "Seccomp:\t2" in status


def test_a_file_is_not_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "_SPARE_BYTES", -3 * len(sample()) - 100)

    with pytest.raises(PictureError, match="too_much_work"):
        video.read_film(sample(), PictureFormat.MP4, max_pixels=10**6, max_frames=9, max_pixels_together=10**6)
