import io
from collections.abc import Sequence

import pytest
from PIL import Image, ImageCms

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.decode import DecodeLimits
from mediarepo.images.errors import PictureError
from mediarepo.images.rendering import RenderedImage, render
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from tests.pictures.drawn import BLUE, GREEN, RED, WHITE, animated, corners, encoded, hostile, jpeg, oriented

CROP, SCALE = ThumbnailMethod.CROP, ThumbnailMethod.SCALE
SPECS = ThumbnailsConfig().specs


def opened(made: RenderedImage) -> Image.Image:
    assert made.data is not None
    picture = Image.open(io.BytesIO(made.data))
    assert picture.size == (made.width, made.height)
    return picture


def looks_like(picture: Image.Image, expected: Sequence[tuple[int, int, int]] = (RED, GREEN, BLUE, WHITE)) -> bool:
    """Compare the colours near the corners: top left, top right, bottom left, bottom right."""
    colours = picture.convert("RGB")
    x, y = max(picture.width // 8, 0), max(picture.height // 8, 0)
    at = [
        (x, y),
        (picture.width - 1 - x, y),
        (x, picture.height - 1 - y),
        (picture.width - 1 - x, picture.height - 1 - y),
    ]
    seen = [colours.getpixel(place) for place in at]
    for one, other in zip(seen, expected, strict=True):
        assert isinstance(one, tuple)
        if any(abs(a - b) > 30 for a, b in zip(one, other, strict=True)):
            return False
    return True


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright_in_every_size(limits: DecodeLimits, orientation: int) -> None:
    made = render(oriented(1200, 800, orientation), SPECS, limits)

    assert {one.spec: (one.width, one.height) for one in made} == {
        ThumbnailSpec(32, 32, CROP): (32, 32),
        ThumbnailSpec(96, 96, CROP): (96, 96),
        ThumbnailSpec(320, 240, SCALE): (320, 213),
        ThumbnailSpec(640, 480, SCALE): (640, 427),
        ThumbnailSpec(800, 600, SCALE): (800, 533),
    }
    for one in made:
        assert looks_like(opened(one)), one.spec
        assert dict(opened(one).getexif()) == {}
        assert b"ExamplePhone" not in (one.data or b"")


@pytest.mark.parametrize(
    ("name", "mode", "content_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("PNG", "RGB", "image/png"),
        ("PNG", "RGBA", "image/png"),
        ("PNG", "P", "image/png"),
        ("GIF", "P", "image/png"),
        ("WEBP", "RGB", "image/jpeg"),
        ("AVIF", "RGB", "image/jpeg"),
        ("BMP", "RGB", "image/jpeg"),
        ("TIFF", "RGB", "image/jpeg"),
        ("TIFF", "CMYK", "image/jpeg"),
    ],
)
def test_every_format_keeps_its_colours_and_gets_its_type(
    limits: DecodeLimits, name: str, mode: str, content_type: str
) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((1000, 700), 60) for _ in range(3)])
    picture = Image.blend(corners(1000, 700), noise, 0.08).convert(mode)
    made = render(encoded(picture, name), SPECS, limits)

    assert len(made) == 5
    for one in made:
        if mode == "P" and one.data is None:  # with a palette, the source is smaller than its thumbnail can be
            assert (one.content_type, one.spec.method) == (f"image/{name.lower()}", SCALE)
            continue
        assert one.content_type == content_type
        assert looks_like(opened(one)), one.spec


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "TIFF", "PNG"])
def test_transparency_survives_as_png(limits: DecodeLimits, name: str) -> None:
    picture = corners(400, 400, "RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((400, 400)))

    (made,) = render(encoded(picture, name), [ThumbnailSpec(96, 96, CROP)], limits)

    small = opened(made)
    assert (made.content_type, small.mode) == ("image/png", "RGBA")
    alpha = small.getchannel("A").tobytes()
    assert min(alpha) < 20
    assert max(alpha) > 230


def test_palette_transparency_becomes_alpha(limits: DecodeLimits) -> None:
    picture = corners(200, 200).quantize()
    data = encoded(picture, "PNG", transparency=0)

    (made,) = render(data, [ThumbnailSpec(32, 32, CROP)], limits)

    assert opened(made).mode == "RGBA"


def test_sixteen_bits_become_eight_and_not_white(limits: DecodeLimits) -> None:
    ramp = Image.linear_gradient("L").resize((300, 300)).convert("I").point(lambda v: v * 257).convert("I;16")

    (made,) = render(encoded(ramp, "PNG"), [ThumbnailSpec(96, 96, CROP)], limits)

    grey = opened(made).convert("L").tobytes()
    assert min(grey) < 10
    assert max(grey) > 245


def test_an_icc_profile_is_converted_and_removed(limits: DecodeLimits) -> None:
    swapped = Image.new("RGB", (400, 400), (200, 30, 30))
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"

    (made,) = render(
        encoded(swapped, "JPEG", icc_profile=bytes(profile), quality=95), [ThumbnailSpec(32, 32, CROP)], limits
    )

    small = opened(made)
    pixel = small.convert("RGB").getpixel((16, 16))
    assert isinstance(pixel, tuple)
    assert pixel[2] > 150 > pixel[0]
    assert "icc_profile" not in small.info


def test_a_broken_profile_is_ignored(limits: DecodeLimits) -> None:
    made = render(jpeg(1000, 700, icc_profile=b"nonsense" * 40), SPECS, limits)

    assert all(looks_like(opened(one)) for one in made)


def test_a_small_bare_picture_is_its_own_thumbnail(limits: DecodeLimits) -> None:
    for name, content_type in (("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")):
        made = render(
            encoded(corners(60, 40), name), [ThumbnailSpec(96, 96, CROP), ThumbnailSpec(800, 600, SCALE)], limits
        )
        assert [(one.data, one.content_type, one.width, one.height) for one in made] == [
            (None, content_type, 60, 40)
        ] * 2


@pytest.mark.parametrize(
    "data",
    [
        oriented(60, 40, 6),
        jpeg(60, 40, comment=b"secret"),
        encoded(corners(60, 40), "PNG") + b"<html><script>",
        encoded(corners(60, 40), "BMP"),
        animated("GIF", 60, 40, 3),
    ],
)
def test_a_small_picture_with_more_in_it_is_encoded_anew_in_its_own_size(limits: DecodeLimits, data: bytes) -> None:
    (made,) = render(data, [ThumbnailSpec(800, 600, SCALE)], limits)

    assert (made.width, made.height) == (60, 40)
    assert made.data is not None
    assert b"secret" not in made.data
    assert b"<script>" not in made.data


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_stays_one_only_when_asked_for(limits: DecodeLimits, name: str) -> None:
    still, moving = ThumbnailSpec(32, 32, CROP), ThumbnailSpec(32, 32, CROP, animated=True)
    data = animated(name, 200, 100, 5)

    by_spec = {one.spec: one for one in render(data, [still, moving], limits)}

    assert getattr(opened(by_spec[still]), "n_frames", 1) == 1
    result = opened(by_spec[moving])
    assert by_spec[moving].content_type == "image/webp"
    assert getattr(result, "n_frames", 1) == 5
    assert result.size == (32, 32)


@pytest.mark.parametrize("data", [animated("GIF", 20, 20, 30), animated("GIF", 1000, 1000, 6), jpeg(200, 200)])
def test_what_cannot_or_should_not_move_stands_still(limits: DecodeLimits, data: bytes) -> None:
    moving = ThumbnailSpec(16, 16, CROP, animated=True)

    (made,) = render(data, [moving], limits)

    assert made.spec == moving
    assert made.content_type != "image/webp"


def test_the_pages_of_a_document_are_no_animation(limits: DecodeLimits) -> None:
    pages = [corners(300, 200), corners(300, 200, "L").convert("RGB")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])

    (made,) = render(data, [ThumbnailSpec(32, 32, CROP, animated=True)], limits)

    assert made.content_type == "image/jpeg"


def test_an_animation_that_was_cut_off_moves_as_far_as_it_goes(limits: DecodeLimits) -> None:
    noise = [Image.effect_noise((200, 200), 200 + n).convert("P") for n in range(6)]
    data = encoded(noise[0], "GIF", save_all=True, append_images=noise[1:])

    (made,) = render(data[: len(data) // 2], [ThumbnailSpec(32, 32, CROP, animated=True)], limits)

    assert made.content_type == "image/webp"
    assert 2 <= opened(made).n_frames <= 4  # type: ignore[attr-defined]


def test_equal_input_gives_equal_bytes(limits: DecodeLimits) -> None:
    data = encoded(corners(900, 700), "PNG")

    assert render(data, SPECS, limits) == render(data, SPECS, limits)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "unsupported_format"),
        ("huge_header.png", "too_many_pixels"),
        ("one_bit_900_megapixels.png", "too_many_pixels"),
        ("huge_canvas.gif", "too_many_pixels"),
        ("tiff_60000", "too_many_pixels"),
        ("scan_bomb.jpg", "too_many_scans"),
        ("postscript.jpg", "unsupported_format"),
        ("html.png", "unsupported_format"),
        ("drawing.svg", "unsupported_format"),
    ],
)
def test_hostile_files_are_refused_by_their_header(limits: DecodeLimits, name: str, reason: str) -> None:
    with pytest.raises(PictureError) as refused:
        render(hostile()[name], SPECS, limits)

    assert refused.value.reason == reason
