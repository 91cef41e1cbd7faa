import pytest
from PIL import Image, PngImagePlugin

from mediarepo.images.formats import PictureFormat, sniff
from mediarepo.images.metadata import is_bare
from tests.pictures.drawn import animated, corners, encoded, jpeg, oriented

PICTURE = corners(60, 40)
BARE = {
    PictureFormat.JPEG: [jpeg(60, 40), jpeg(60, 40, progressive=True), encoded(PICTURE.convert("CMYK"), "JPEG")],
    PictureFormat.PNG: [
        encoded(PICTURE, "PNG"),
        encoded(PICTURE.convert("P"), "PNG"),
        encoded(PICTURE.convert("LA"), "PNG"),
    ],
    PictureFormat.GIF: [encoded(PICTURE.quantize(), "GIF")],
    PictureFormat.WEBP: [
        encoded(PICTURE, "WEBP"),
        encoded(PICTURE, "WEBP", lossless=True),
        encoded(PICTURE.convert("RGBA"), "WEBP"),
    ],
}
CASES = [(picture_format, data) for picture_format, files in BARE.items() for data in files]


def text_chunk() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    return info


@pytest.mark.parametrize(("picture_format", "data"), CASES)
def test_a_picture_and_nothing_else_is_bare(picture_format: PictureFormat, data: bytes) -> None:
    assert sniff(data) is picture_format
    assert is_bare(data, picture_format)


@pytest.mark.parametrize(("picture_format", "data"), CASES)
@pytest.mark.parametrize("tail", [b"\0", b"<html>", b"PK\x03\x04"])
def test_anything_behind_the_end_is_more(picture_format: PictureFormat, data: bytes, tail: bytes) -> None:
    assert not is_bare(data + tail, picture_format)


@pytest.mark.parametrize(("picture_format", "data"), CASES)
def test_a_part_of_a_file_is_not_bare(picture_format: PictureFormat, data: bytes) -> None:
    for size in (len(data) - 1, len(data) // 2, 20, 4, 0):
        assert not is_bare(data[:size], picture_format)


@pytest.mark.parametrize(
    ("picture_format", "data"),
    [
        (PictureFormat.JPEG, oriented(60, 40, 1)),
        (PictureFormat.JPEG, jpeg(60, 40, comment=b"hello")),
        (PictureFormat.JPEG, jpeg(60, 40, icc_profile=b"x" * 200)),
        (PictureFormat.PNG, encoded(PICTURE, "PNG", pnginfo=text_chunk())),
        (PictureFormat.PNG, encoded(PICTURE, "PNG", icc_profile=b"x" * 200)),
        (PictureFormat.PNG, encoded(PICTURE, "PNG", exif=Image.Exif().tobytes())),
        (PictureFormat.GIF, encoded(PICTURE.quantize(), "GIF", comment=b"hello")),
        (PictureFormat.GIF, animated("GIF", 60, 40, 3)),
        (PictureFormat.WEBP, encoded(PICTURE, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")),
        (PictureFormat.WEBP, encoded(PICTURE, "WEBP", icc_profile=b"x" * 200)),
        (PictureFormat.WEBP, animated("WEBP", 60, 40, 3)),
        (PictureFormat.BMP, encoded(PICTURE, "BMP")),
    ],
)
def test_metadata_animation_and_other_formats_are_more(picture_format: PictureFormat, data: bytes) -> None:
    assert sniff(data) is picture_format
    assert not is_bare(data, picture_format)
