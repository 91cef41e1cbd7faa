"""JPEG 2000, where it is switched on, through the real sandboxed worker."""

import struct
from collections.abc import AsyncIterator
from functools import cache

import pytest

from mediarepo.images.errors import PictureError
from mediarepo.images.formats import PictureFormat
from mediarepo.images.worker_pool import ImageDimensions, Rendered
from tests.pictures.drawn import corners, encoded
from tests.pictures.screen import Screen
from tests.unit.images.test_rendering import looks_like

SIZ = b"\xff\x4f\xff\x51"


@pytest.fixture(scope="module")
async def screen() -> AsyncIterator[Screen]:
    made = Screen(jpeg2000=True)
    async with made.pool:
        yield made


@cache
def sample(mode: str = "RGB", *, bare: bool = False, **options: object) -> bytes:
    return encoded(corners(400, 300, mode), "JPEG2000", no_jp2=bare, **options)


@cache
def hostile_wavelets() -> dict[str, bytes]:
    data, bare = sample(), sample(bare=True)
    siz = data.index(SIZ)
    most = b"\xff\xff\xff\xff"

    def changed(offset: int, value: bytes, *, of: bytes = data) -> bytes:
        at = of.index(SIZ) + offset
        return of[:at] + value + of[at + len(value) :]

    return {
        "only_a_signature": data[:12],
        "only_a_header": data[: siz + 60],
        "bare_header": bare[:20],
        "truncated": data[: len(data) // 2],
        "truncated_bare": bare[: len(bare) // 2],
        "huge_in_the_codestream": changed(8, most * 2),
        "huge_bare": changed(8, most * 2, of=bare),
        "huge_in_the_file": data.replace(struct.pack(">II", 300, 400), most * 2, 1),
        "25_megapixels_of_nothing": changed(8, struct.pack(">II", 5000, 5000), of=bare)[: siz + 200],
        "one_line": changed(8, struct.pack(">II", 25_000_000, 1), of=bare),
        "tiles_of_a_pixel": changed(24, struct.pack(">II", 1, 1)),
        "tiles_of_a_pixel_of_25_megapixels": changed(8, struct.pack(">IIIIII", 5000, 5000, 0, 0, 1, 1), of=bare),
        "nothing_left": changed(16, struct.pack(">II", 400, 300)),
        "many_components": changed(40, b"\x40\x00"),
        "no_components": changed(40, b"\x00\x00"),
        "endless_box": data[:12] + b"\0\0\0\1ftyp" + most * 2 + data[20:],
        "boxes_in_boxes": data[:12] + b"\0\0\0\0jp2h" * 20_000,
    } | {
        f"flipped_{n}": bytes(byte ^ (1 << n % 8 if at % 97 == n else 0) for at, byte in enumerate(data))
        for n in range(30, 46)
    }


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("bare", [False, True], ids=["a file", "a codestream"])
async def test_jpeg_2000_is_shown(screen: Screen, mode: str, bare: bool) -> None:
    picture = await screen.largest(sample(mode, bare=bare))

    assert picture.size == (400, 300)
    if mode != "L":
        assert looks_like(picture)


async def test_its_size_is_measured(screen: Screen) -> None:
    assert await screen.measure(sample()) == ImageDimensions(PictureFormat.JPEG_2000, 400, 300)


async def test_it_is_refused_where_it_is_not_switched_on() -> None:
    plain = Screen()
    async with plain.pool:
        with pytest.raises(PictureError, match="unsupported_format"):
            await plain.render(sample())


@pytest.mark.parametrize("name", sorted(hostile_wavelets()))
async def test_no_codestream_takes_the_worker_over_its_limits(screen: Screen, name: str) -> None:
    assert isinstance(await screen.withstands(hostile_wavelets()[name]), Rendered | PictureError)


@pytest.mark.parametrize("name", ["huge_in_the_codestream", "huge_bare"])
async def test_the_size_is_refused_before_memory_is_taken(screen: Screen, name: str) -> None:
    with pytest.raises(PictureError, match="too_many_pixels"):
        await screen.render(hostile_wavelets()[name])
