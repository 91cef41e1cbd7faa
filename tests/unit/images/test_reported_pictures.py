"""Pictures as people have them, from public bug reports: what browsers show of each, and hostile twins."""

import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.metadata import read_jpeg
from mediarepo.images.worker_pool import SourceBudget, WorkerPool
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.pictures.drawn import corners, encoded, jpeg

PICTURES = Path(__file__).parents[2] / "fixtures" / "pictures"
BOX = (320, 240, ThumbnailMethod.SCALE)
Pixel = tuple[int, ...]


class Workers:
    """Image workers as the server has them: sandboxed."""

    def __init__(self, pool: WorkerPool, config: ThumbnailsConfig) -> None:
        self._pool, self._config = pool, config

    async def thumbnail(self, data: bytes, *, animated: bool = False) -> Image.Image:
        spec = ThumbnailSpec(*BOX, animated=animated)
        async with SourceBudget(self._config).reserve(len(data)) as source:
            await source.write(data)
            rendered = await self._pool.render(source, [spec])
        (made,) = rendered.thumbnails
        picture = Image.open(io.BytesIO(data if made.own_bytes else rendered.data))
        assert picture.size == (made.width, made.height)
        assert picture.get_format_mimetype() == made.content_type
        return picture


@pytest.fixture(scope="module")
async def workers() -> AsyncIterator[Workers]:
    config = ThumbnailsConfig(workers=1)
    async with WorkerPool(config) as pool:
        yield Workers(pool, config)


def pixel(picture: Image.Image, x: float, y: float) -> Pixel:
    found = picture.convert("RGBA").getpixel((int(x * (picture.width - 1)), int(y * (picture.height - 1))))
    assert isinstance(found, tuple)
    return found


def near(found: Pixel, expected: Pixel, by: int = 6) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def frames(picture: Image.Image) -> list[tuple[int, Pixel]]:
    """Durations in ms, and the colour in the middle, of each frame."""
    seen = []
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        middle = pixel(picture, 0.5, 0.5)
        seen.append((int(picture.info["duration"]), middle))
    return seen


RED, BLUE, GREEN = (220, 20, 20, 255), (20, 20, 220, 255), (20, 200, 20, 255)
LEFT_RED, RIGHT_BLUE = (200, 40, 40, 255), (40, 60, 200, 255)


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("03-1bit-trns.png", None, (0, 0, 0, 255)),
        ("05c-gray2-trns.png", None, (85, 85, 85, 255)),
        ("06a-phys-badcrc.png", LEFT_RED, RIGHT_BLUE),
        ("06f-bad-chunkname.png", LEFT_RED, RIGHT_BLUE),
        ("35a-itxt-big-xmp.png", LEFT_RED, RIGHT_BLUE),
        ("35c-iccp-big.png", LEFT_RED, RIGHT_BLUE),
        ("37a-gama-short.png", LEFT_RED, RIGHT_BLUE),
        ("14f-xmp-only-orientation.jpg", LEFT_RED, RIGHT_BLUE),
        ("22-motion-photo-trailer.jpg", LEFT_RED, RIGHT_BLUE),
        ("07-apng-hidden-default.png", RED, RED),
        ("16-gama-linear.png", (128, 128, 128, 255), (128, 128, 128, 255)),
        ("17-cicp-pq.png", (187, 187, 187, 255), (187, 187, 187, 255)),
        ("18f-avif-nclx-p3.avif", (217, 42, 51, 255), (217, 42, 51, 255)),
    ],
)
async def test_what_browsers_show_is_shown(workers: Workers, name: str, left: Pixel | None, right: Pixel) -> None:
    picture = await workers.thumbnail((PICTURES / name).read_bytes())

    assert picture.size == (320, 240)
    assert pixel(picture, 0.25, 0.5)[3] == 0 if left is None else near(pixel(picture, 0.25, 0.5), left)
    assert near(pixel(picture, 0.75, 0.5), right)


@pytest.mark.parametrize("name", ["15a-no-eoi.jpg", "15b-cut-1pc.jpg"])
async def test_a_jpeg_that_lacks_its_end_is_shown(workers: Workers, name: str) -> None:
    assert (await workers.thumbnail((PICTURES / name).read_bytes())).size == (320, 240)


async def test_a_tiff_is_turned_once(workers: Workers) -> None:
    picture = await workers.thumbnail((PICTURES / "25c-tiff-orient6.tif").read_bytes())

    assert picture.size == (180, 240)
    assert near(pixel(picture, 0.5, 0.2), LEFT_RED, 12)
    assert near(pixel(picture, 0.97, 0.02), (30, 180, 60, 255), 12)
    assert near(pixel(picture, 0.5, 0.9), RIGHT_BLUE, 12)


@pytest.mark.parametrize(
    ("name", "plays", "durations", "colours"),
    [
        ("07-apng-hidden-default.png", None, [100, 100], [BLUE, GREEN]),
        ("08c-gif-delay0-gce.gif", None, [100] * 3, [(255, 0, 0, 255), (0, 0, 255, 255), (0, 128, 0, 255)]),
        ("12a-gif-netscape1.gif", 2, [200] * 3, [RED, BLUE, GREEN]),
        ("13-avis-infinite.avif", 0, [200] * 3, [RED, BLUE, GREEN]),
        ("34-webp-anim-durations.webp", None, [50, 300, 700], [RED, BLUE, GREEN]),
    ],
)
async def test_animations_move_as_in_browsers(
    workers: Workers, name: str, plays: int | None, durations: list[int], colours: list[Pixel]
) -> None:
    picture = await workers.thumbnail((PICTURES / name).read_bytes(), animated=True)

    seen = frames(picture)
    assert [duration for duration, _ in seen] == durations
    assert all(near(found, expected) for (_, found), expected in zip(seen, colours, strict=True))
    if plays is not None:
        assert picture.info["loop"] == plays


async def test_disposal_to_background_clears_to_transparent(workers: Workers) -> None:
    picture = await workers.thumbnail((PICTURES / "09b-gif-dispose-mix.gif").read_bytes(), animated=True)

    picture.seek(4)
    found = picture.convert("RGBA").getpixel((30, 30))
    assert isinstance(found, tuple)
    assert found[3] == 0


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by hand; `chunks` come before its picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = b"".join(chunk(kind, data) for kind, data in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "key", "right"),
    [
        (1, 0, b"\x00\x00\xff", (0,), 255),
        (1, 0, b"\x00\xff\x00", (1,), 0),
        (2, 0, b"\x00\xaa\xaa\x55\x55", (2,), 85),
        (4, 0, b"\x00" + b"\x77" * 4 + b"\x33" * 4, (7,), 51),
        (8, 0, b"\x00" + b"\x80" * 8 + b"\x40" * 8, (0x80,), 64),
        (16, 0, b"\x00" + b"\x80\x01" * 8 + b"\x80\x02" * 8, (0x8001,), 128),
        (8, 2, b"\x00" + b"\x01\x02\x03" * 8 + b"\x40\x40\x40" * 8, (1, 2, 3), 64),
        (16, 2, b"\x00" + b"\x01\x00\x02\x00\x03\x00" * 8 + b"\x40\x00" * 24, (0x100, 0x200, 0x300), 64),
    ],
)
async def test_a_colour_key_of_any_depth_is_transparent(
    workers: Workers, depth: int, colour_type: int, row: bytes, key: tuple[int, ...], right: int
) -> None:
    key_chunk = (b"tRNS", struct.pack(f">{len(key)}H", *key))
    picture = await workers.thumbnail(png(16, 16, depth, colour_type, row * 16, key_chunk))

    assert pixel(picture, 0.75, 0.5) == (right, right, right, 255) or picture.mode in {"1", "I;16"}
    if picture.size == (16, 16) and picture.mode in {"L", "LA", "RGBA", "P"}:
        return
    assert picture.info.get("transparency") is not None or pixel(picture, 0.25, 0.5)[3] == 0


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tEXt", b"Comment\x00" + b"x" * 3_000_000),
        (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(200_000_000))),
        (b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(bytes(200_000_000))),
        (b"iCCP", b"x\x00\x00" + zlib.compress(bytes(200_000_000))),
        (b"iCCP", b"x\x00\x00" + b"garbage"),
        (b"eXIf", b"MM\x00*" + b"\xff" * 300_000),
        (b"cICP", b"\x09\x10"),
        (b"cICP", b"\x09\x10\x00\x01" * 100),
        (b"gAMA", b"\x00\x00\x00\x00"),
        (b"gAMA", b"\xff\xff\xff\xff"),
        (b"cHRM", bytes(32)),
        (b"pHYs", b""),
        (b"\x00\x01\x02\x03", b"no name"),
        (b"abcd", b"x" * 100),
    ],
)
async def test_what_is_not_the_picture_never_keeps_it_from_being_shown(
    workers: Workers, chunk: tuple[bytes, bytes]
) -> None:
    rows = (b"\x00" + b"\xc8\x28\x28" * 400) * 300
    more = [(b"gAMA", struct.pack(">I", 45455))] if chunk[0] == b"cHRM" else []

    picture = await workers.thumbnail(png(400, 300, 8, 2, rows, *more, chunk))

    assert picture.size == (320, 240)
    assert near(pixel(picture, 0.5, 0.5), (200, 40, 40, 255)) or chunk[0] in {b"gAMA", b"cHRM"}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("left", [0.99, 0.9, 0.5])
async def test_what_there_is_of_a_cut_file_is_shown(workers: Workers, name: str, left: float) -> None:
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    picture = Image.blend(corners(400, 300), noise, 0.3)
    data = encoded(picture.convert("P") if name == "GIF" else picture, name)

    shown = await workers.thumbnail(data[: int(len(data) * left)])

    assert shown.size == (320, 240)
    assert near(pixel(shown.resize((8, 6)), 0.1, 0.1)[:3], pixel(picture.resize((8, 6)), 0.1, 0.1)[:3], 40)


async def test_a_jpeg_of_108_megapixels_is_shown_and_a_progressive_one_is_too_large(workers: Workers) -> None:
    huge = Image.new("L", (12_000, 9_000), 128)

    shown = await workers.thumbnail(encoded(huge, "JPEG", quality=30))

    assert shown.size == (320, 240)
    with pytest.raises(PictureError) as refused:
        await workers.thumbnail(encoded(huge, "JPEG", quality=30, progressive=True))
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_scans_are_counted_in_the_picture_and_nowhere_else() -> None:
    plain, progressive = jpeg(100, 100), jpeg(100, 100, progressive=True)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 1000) + b"\xff\xda" * 500
    with_thumbnail = plain[:2] + exif + plain[2:]

    assert read_jpeg(plain, 100).scans == 1
    assert read_jpeg(with_thumbnail, 100).scans == 1
    assert read_jpeg(plain + b"\xff\xda\x00\x04ab" * 1000, 100).scans == 1
    assert 1 < read_jpeg(progressive, 100).scans < 20
    scan = progressive[progressive.rindex(b"\xff\xda") : progressive.rindex(b"\xff\xd9")]
    bomb = progressive[:-2] + scan * 500 + b"\xff\xd9"
    assert read_jpeg(bomb, 100).scans > 100
    assert read_jpeg(bomb[:-2], 100).scans > 100


async def test_bytes_behind_a_picture_are_nobodys_business(workers: Workers) -> None:
    trailer = bytes(range(256)) * 36_000
    for data in (jpeg(400, 300), encoded(corners(400, 300), "PNG"), encoded(corners(400, 300, "P"), "GIF")):
        assert (await workers.thumbnail(data + trailer)).size == (320, 240)


async def test_a_drawing_is_never_larger_than_its_source() -> None:
    drawing = Image.new("P", (1600, 1200))
    drawing.putpalette([channel for n in range(256) for channel in (n, 255 - n, n // 2)])
    for x in range(0, 1600, 7):
        drawing.paste(x % 256, (x, 0, x + 3, 1200))
    data = encoded(drawing, "PNG", optimize=True)
    config = ThumbnailsConfig(workers=1)

    async with WorkerPool(config) as pool, SourceBudget(config).reserve(len(data)) as source:
        await source.write(data)
        rendered = await pool.render(source, config.specs)

    scaled = [one for one in rendered.thumbnails if one.spec.method is ThumbnailMethod.SCALE]
    assert all(one.own_bytes or one.size_bytes <= max(len(data), 1024) for one in scaled)


async def test_opaque_alpha_is_dropped(workers: Workers) -> None:
    noise = Image.blend(corners(800, 600), Image.effect_noise((800, 600), 90).convert("RGB"), 0.3).convert("RGBA")

    assert (await workers.thumbnail(encoded(noise, "PNG"))).mode == "RGB"
