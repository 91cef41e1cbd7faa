"""For everything that is read as tolerantly as browsers do, a file that would make harm of it."""

import struct
import zlib

import pytest
from PIL import Image

from mediarepo.images.animations import read_apng, read_gif
from mediarepo.images.decode import DecodeLimits, frame_count, open_picture, orientation_of
from mediarepo.images.errors import PictureError, Reason
from mediarepo.images.isobmff import colour_code_points, declared_size, play_count
from mediarepo.images.metadata import read_jpeg, with_end
from mediarepo.images.png import read_png
from mediarepo.images.rendering import RenderedImage, render
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.pictures.drawn import corners, encoded
from tests.pictures.varied import gifs, moving_pngs, pngs

MOVING = ThumbnailSpec(48, 48, ThumbnailMethod.SCALE, animated=True)


def made(data: bytes, limits: DecodeLimits) -> RenderedImage:
    (one,) = render(data, [MOVING], limits)
    return one


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_cut_png_that_unpacks_to_much_more_is_unpacked_as_far_as_its_header_says(
    limits: DecodeLimits, *, interlaced: bool
) -> None:
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(200)) + bomb.flush()

    data = pngs.written(pngs.head(2, 8, interlaced=interlaced), (b"IDAT", packed))

    assert made(data, limits).content_type in {"image/png", "image/jpeg"}


def test_a_frame_of_an_apng_that_unpacks_to_much_more_is_a_frame(limits: DecodeLimits) -> None:
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(200)) + bomb.flush()
    chunks = moving_pngs.animation()
    frame = chunks[5]
    assert isinstance(frame, tuple)

    assert made(pngs.written(*chunks[:5], (b"fdAT", frame[1][:4] + packed), *chunks[6:]), limits).data


@pytest.mark.parametrize(
    "place", [(60_000, 60_000, 0, 0), (2**31, 1, 0, 0), (1, 1, 2**32 - 1, 2**32 - 1), (0, 0, 0, 0)]
)
def test_frames_of_an_apng_stay_within_its_canvas(place: tuple[int, int, int, int]) -> None:
    chunks = moving_pngs.animation()
    control = (b"fcTL", struct.pack(">5I2H2B", 1, *place, 1, 10, 0, 0))

    apng = read_apng(read_png(pngs.written(*chunks[:4], control, *chunks[5:])))

    assert apng is not None
    assert len(apng.frames) == 1


def test_an_apng_of_many_tiny_frames_on_a_large_canvas_stands_still(limits: DecodeLimits) -> None:
    chunks = moving_pngs.animation()
    assert isinstance(chunks[3], tuple)
    large = (b"IHDR", struct.pack(">IIBBBBB", 3000, 3000, 8, 6, 0, 0, 0))
    first = (b"fcTL", struct.pack(">5I2H2B", 0, 3000, 3000, 0, 0, 1, 10, 0, 0))
    picture = (b"IDAT", zlib.compress((b"\x00" + bytes(12_000)) * 3000))

    opened = open_picture(pngs.written(large, chunks[1], first, picture, *chunks[4:]), limits)

    assert opened.moving is not None
    assert len(opened.moving.frames) == 4
    assert frame_count(opened, limits) == 1


def test_an_endless_row_of_chunks_ends() -> None:
    data = pngs.written(pngs.head(2, 8)) + b"\x00\x00\x00\x00fdAT\x00\x00\x00\x00" * 1_000_000

    assert len(read_png(data).moving) <= 200_000


def test_frames_of_a_gif_larger_than_its_screen_count_with_their_own_pixels(limits: DecodeLimits) -> None:
    small = gifs.image((0, 0, 4, 4), bytes(16))
    huge = b"\x2c" + struct.pack("<4H", 0, 0, 60_000, 60_000) + b"\x00" + gifs.packed(bytes(16))
    data = gifs.screen((4, 4)) + small + huge * 10 + b"\x3b"

    opened = open_picture(data, limits)

    assert frame_count(opened, limits) == 1
    assert made(data, limits).width == 4


def test_a_first_frame_larger_than_the_screen_is_refused_by_its_size(limits: DecodeLimits) -> None:
    huge = b"\x2c" + struct.pack("<4H", 0, 0, 60_000, 60_000) + b"\x00" + gifs.packed(bytes(16))

    with pytest.raises(PictureError) as refused:
        made(gifs.screen((4, 4)) + huge + b"\x3b", limits)
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_blocks_of_a_gif_that_never_end_do() -> None:
    data = gifs.screen() + b"\x21\xfe" + b"\x01x" * 3_000_000

    assert read_gif(data, 10).frames == ()


@pytest.mark.parametrize("options", [{"progressive": True}, {"progressive": True, "subsampling": 0}])
def test_a_jpeg_that_is_kept_in_memory_has_the_ordinary_limit_cut_or_not(
    limits: DecodeLimits, options: dict[str, bool]
) -> None:
    data = resized(encoded(corners(64, 64), "JPEG", **options), 12_000, 9_000)

    for one in (data, data[:-2], data[:-40]):
        with pytest.raises(PictureError) as refused:
            made(one, limits)
        assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_a_sequential_jpeg_with_a_scan_for_each_colour_is_kept_in_memory() -> None:
    data = encoded(corners(64, 64), "JPEG")
    scan = data.index(b"\xff\xda")
    alone = data[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + data[scan + 14 :]

    assert not read_jpeg(data, 100).in_memory
    assert read_jpeg(alone, 100).in_memory


def test_a_jpeg_too_large_to_be_decoded_even_at_an_eighth_is_refused(limits: DecodeLimits) -> None:
    with pytest.raises(PictureError) as refused:
        made(resized(encoded(corners(64, 64), "JPEG"), 65_500, 65_500), limits)
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def resized(data: bytes, width: int, height: int) -> bytes:
    """Let a JPEG's header claim another size."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_scans_are_counted_in_a_file_without_an_end_too(limits: DecodeLimits) -> None:
    data = encoded(corners(64, 64), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]

    with pytest.raises(PictureError) as refused:
        made(data[:-2] + scan * 200, limits)
    assert refused.value.reason is Reason.TOO_MANY_SCANS


def test_a_jpeg_that_ends_before_its_picture_is_corrupt(limits: DecodeLimits) -> None:
    data = encoded(corners(64, 64), "JPEG")

    for end in (2, 4, 20, data.index(b"\xff\xda"), data.index(b"\xff\xda") + 6):
        with pytest.raises((PictureError, OSError)):
            made(data[:end].ljust(3, b"\xff"), limits)


def test_what_is_left_of_a_cut_jpeg_always_ends() -> None:
    data = encoded(corners(64, 64), "JPEG", progressive=True)

    for end in range(2, len(data), 7):
        jpeg = read_jpeg(data[:end], 100)
        assert jpeg.missing_from is not None
        assert with_end(data[:end], jpeg).endswith(b"\xff\xd9")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"MM\x00*",
        b"MM\x00*\xff\xff\xff\xff",
        b"MM\x00*\x00\x00\x00\x08\xff\xff",
        b"II*\x00\x08\x00\x00\x00\xff\xff" + b"\x00" * 11,
        b"MM\x00*\x00\x00\x00\x08\xff\xff" + bytes(12) * 70_000,
        b"MM\x00*\x00\x00\x00\x00" + bytes(100),
    ],
)
def test_exif_that_leads_nowhere_turns_nothing(block: bytes) -> None:
    assert orientation_of(b"Exif\x00\x00" + block) == 1
    assert orientation_of(block) == 1


@pytest.mark.parametrize(
    "values", [[0] * 8, [2**32 - 1] * 8, [1] * 8, [31270, 32900, 1, 1, 2, 2, 3, 3], [31270, 0, 0, 0, 0, 0, 0, 0]]
)
@pytest.mark.parametrize("gamma", [0, 1, 2**31, 2**32 - 1])
def test_colours_that_cannot_be_are_no_reason_to_refuse(limits: DecodeLimits, values: list[int], gamma: int) -> None:
    data = pngs.png(2, 8, (b"cHRM", struct.pack(">8I", *values)), (b"gAMA", struct.pack(">I", gamma)))

    assert made(data, limits).width == 48


def test_every_code_point_is_shown_as_something(limits: DecodeLimits) -> None:
    for code in [*range(24), 255]:
        for other in (0, 1, 9, 10, 13, 16, 18, 255):
            data = pngs.png(0, 1, (b"cICP", bytes((code, other, 0, 1))))
            assert made(data, limits).width == 48
            assert open_picture(pngs.png(0, 1, (b"cICP", bytes((other, code, 0, 1)))), limits).width == 96


def test_bytes_behind_the_picture_are_never_decoded(limits: DecodeLimits) -> None:
    other = encoded(Image.new("RGB", (96, 72), "white"), "PNG")

    assert [chunk for chunk, _ in read_png(pngs.png() + other).moving] == [b"IDAT"]
    assert read_png(pngs.png() + other).data == pngs.png()
    assert made(pngs.png() + other, limits).width == 48


def webp(kind: bytes, content: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "data",
    [
        webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(5)),
        webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383)),
        webp(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2),
    ],
)
def test_a_webp_is_too_large_before_its_decoder_takes_memory(limits: DecodeLimits, data: bytes) -> None:
    with pytest.raises(PictureError) as refused:
        made(data, limits)
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_an_avif_is_too_large_before_its_decoder_sees_it(limits: DecodeLimits) -> None:
    data = encoded(corners(64, 48), "AVIF")
    at = data.index(b"ispe") + 8

    with pytest.raises(PictureError) as refused:
        made(data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :], limits)
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_boxes_without_end_are_walked_only_so_far() -> None:
    box = struct.pack(">I4s", 8, b"trak")
    many = box * 100_000
    moov = struct.pack(">I4s", 8 + len(many), b"moov") + many
    properties = struct.pack(">I4s", 8, b"ispe") * 100_000
    for name in (b"ipco", b"iprp"):
        properties = struct.pack(">I4s", 8 + len(properties), name) + properties
    meta = struct.pack(">I4sI", 12 + len(properties), b"meta", 0) + properties

    assert play_count(moov) == 0
    assert declared_size(moov) is None
    assert declared_size(meta) is None
    assert colour_code_points(meta) is None


def test_properties_that_are_not_there_are_nobodys() -> None:
    data = encoded(corners(64, 48), "AVIF")
    at = data.index(b"ipma")

    for end in range(at + 4, at + 19):
        declared_size(data[:end] + b"\xff" * (len(data) - end))
    assert declared_size(data) == (64, 48)
