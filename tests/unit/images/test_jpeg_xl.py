"""JPEG XL, by the extra `jxl`, through the real sandboxed worker."""

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ImageStat

from mediarepo.images.errors import PictureError
from mediarepo.images.formats import PictureFormat
from mediarepo.images.jpeg_xl_header import FILE_START, declared_size
from mediarepo.images.worker_pool import ImageDimensions, Rendered
from tests.pictures.drawn import corners, encoded
from tests.pictures.filmed import box
from tests.pictures.screen import Screen
from tests.unit.images.test_rendering import looks_like


@pytest.fixture(scope="module")
async def screen() -> AsyncIterator[Screen]:
    made = Screen(jxl=True)
    async with made.pool:
        yield made


@cache
def sample(
    mode: str = "RGB", kind: str = "uint8", *, size: tuple[int, int] = (400, 300), in_file: bool = False
) -> bytes:
    pixels = np.asarray(corners(*size, mode))
    if kind == "uint16":
        pixels = pixels.astype(np.uint16) * 257
    elif kind == "float32":
        pixels = (pixels.astype(np.float32) / 255) ** 2.2  # light
    return bytes(imagecodecs.jpegxl_encode(pixels, usecontainer=in_file, level=95))


def header(width: int, height: int) -> bytes:
    """Write a SizeHeader with both sides in 30 bits."""
    bits = 0 | 3 << 1 | (height - 1) << 3 | 0 << 33 | 3 << 36 | (width - 1) << 38
    return b"\xff\x0a" + bits.to_bytes(12, "little")


@cache
def hostile_xl() -> dict[str, bytes]:
    bare, whole = sample(), sample(in_file=True)
    frames = np.zeros((300, 64, 64, 3), np.uint8)
    solid = bytes(imagecodecs.jpegxl_encode(np.zeros((4000, 6000, 3), np.uint8)))
    flipped = {
        f"flipped_{seed}": bytes(byte ^ (1 << seed % 8 if at % 83 == seed else 0) for at, byte in enumerate(bare))
        for seed in range(12, 36)
    }
    return flipped | {
        "only_a_start": b"\xff\x0a",
        "only_a_file": FILE_START,
        "no_codestream": FILE_START + box(b"ftyp", b"jxl \0\0\0\0jxl "),
        "billion_by_billion": header(1 << 30, 1 << 30) + bare[8:],
        "one_line": header(1 << 30, 1) + bare[8:],
        "just_small_enough": header(5000, 5000) + bare[8:],
        "just_small_enough_of_nothing": header(5000, 5000),
        "solid_24_megapixels": solid,
        "truncated_solid": solid[: len(solid) // 2],
        "truncated": bare[: len(bare) // 2],
        "truncated_file": whole[: len(whole) // 2],
        "300_frames": bytes(imagecodecs.jpegxl_encode(frames)),
        "boxes_without_end": FILE_START + box(b"jxlp", b"\0\0\0\0") * 50_000,
        "box_of_nothing": FILE_START + b"\0\0\0\0jxlc" + bare,
        "huge_box": FILE_START + b"\0\0\0\1Exif" + b"\xff" * 8 + bare,
        "another_picture": FILE_START + box(b"jxlc", encoded(corners(9, 9), "PNG")),
    }


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("in_file", [False, True], ids=["a codestream", "a file"])
async def test_jpeg_xl_is_shown(screen: Screen, mode: str, kind: str, in_file: bool) -> None:
    picture = await screen.largest(sample(mode, kind, in_file=in_file))

    assert picture.size == (400, 300)
    assert looks_like(picture)


async def test_a_grey_picture_is_grey(screen: Screen) -> None:
    picture, expected = (await screen.largest(sample("L"))).convert("L"), corners(400, 300, "L")

    assert max(abs(found - wanted) for found, wanted in zip(picture.tobytes(), expected.tobytes(), strict=True)) < 60
    assert abs(ImageStat.Stat(picture).mean[0] - ImageStat.Stat(expected).mean[0]) < 2


async def test_its_size_is_measured(screen: Screen) -> None:
    assert await screen.measure(sample()) == ImageDimensions(PictureFormat.JPEG_XL, 400, 300)


@pytest.mark.parametrize(
    "size", [(8, 8), (256, 256), (257, 100), (400, 300), (1600, 900), (1, 1), (1, 2000), (2000, 1)]
)
@pytest.mark.parametrize("in_file", [False, True])
def test_the_header_says_the_size(size: tuple[int, int], in_file: bool) -> None:
    assert declared_size(sample(size=size, in_file=in_file)) == size


async def test_it_is_refused_where_it_is_not_switched_on() -> None:
    plain = Screen()
    async with plain.pool:
        with pytest.raises(PictureError, match="unsupported_format"):
            await plain.render(sample())
        (pid,) = plain.pool.pids

        assert "libjxl" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("name", sorted(hostile_xl()))
async def test_no_file_takes_the_worker_over_its_limits(screen: Screen, name: str) -> None:
    assert isinstance(await screen.withstands(hostile_xl()[name]), Rendered | PictureError)


@pytest.mark.parametrize("name", ["billion_by_billion", "one_line"])
async def test_the_size_is_refused_before_the_decoder_sees_the_file(screen: Screen, name: str) -> None:
    with pytest.raises(PictureError, match="too_many_pixels"):
        await screen.render(hostile_xl()[name])


async def test_its_worker_has_one_thread(screen: Screen) -> None:
    await screen.render(sample())
    (pid,) = screen.pool.pids

    assert "Threads:\t1\n" in Path(f"/proc/{pid}/status").read_text()
