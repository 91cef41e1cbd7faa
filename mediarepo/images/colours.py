"""From whatever colours a file has to sRGB or grey, eight bits each, with or without alpha."""

from io import BytesIO

from PIL import Image, ImageChops, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_PLAIN = {"L", "RGB", "RGBA"}
_PROFILED = {"L", "RGB", "RGBA", "CMYK"}


def to_scalable(picture: Image.Image, colour_key: tuple[int, ...] | None = None, bit_depth: int = 8) -> Image.Image:
    """Bring a decoded picture into a mode that can be resized well and converted later.

    `colour_key` is the grey sample, or the red, green and blue ones, that is transparent, of `bit_depth` bits.
    """
    if colour_key is not None and (keyed := _without_key(picture, colour_key, bit_depth)) is not None:
        return keyed
    if picture.mode in _SIXTEEN_BITS:
        return picture.convert("I").point(_high_byte).convert("L")
    if picture.mode == "I":
        lowest, highest = _extrema(picture)
        return (picture.point(_high_byte) if highest > 255 or lowest < 0 else picture).convert("L")  # noqa: PLR2004
    if picture.mode in {"1", "F"}:
        return picture.convert("L")
    keyed_modes = {"P", "L", "RGB"} if "transparency" in picture.info else set[str]()
    if picture.mode in {"LA", "La", "PA", "RGBa"} | keyed_modes:
        return picture.convert("RGBA")
    return picture if picture.mode in _PLAIN | {"CMYK"} else picture.convert("RGB")


def _without_key(picture: Image.Image, colour_key: tuple[int, ...], bit_depth: int) -> Image.Image | None:
    """Make the key's colour transparent; samples are scaled to eight bits as the decoder does."""
    if picture.mode in _SIXTEEN_BITS | {"I"} and len(colour_key) == 1:
        samples = picture.convert("I")
        opaque = samples.point([0 if value == colour_key[0] else 255 for value in range(65536)], "L")
        grey = samples.point(_high_byte).convert("L")
        return Image.merge("RGBA", (grey, grey, grey, opaque))
    if picture.mode not in {"1", "L", "RGB"} or len(colour_key) != len(picture.getbands()):
        return None
    most = (1 << bit_depth) - 1
    bands = (picture.convert("L") if picture.mode == "1" else picture).split()
    opaque = Image.new("L", picture.size, 0)
    for band, sample in zip(bands, colour_key, strict=True):
        key = (sample & most) >> 8 if bit_depth == 16 else (sample & most) * 255 // most  # noqa: PLR2004 - cut to eight
        opaque = ImageChops.lighter(opaque, band.point([0 if value == key else 255 for value in range(256)]))
    red, green, blue = bands if len(bands) == 3 else (bands[0],) * 3  # noqa: PLR2004 - red, green, blue
    return Image.merge("RGBA", (red, green, blue, opaque))


def _extrema(picture: Image.Image) -> tuple[float, float]:
    lowest, highest = picture.getextrema()
    if isinstance(lowest, tuple) or isinstance(highest, tuple):
        raise TypeError("one band expected")
    return lowest, highest


def _high_byte(value: float) -> float:
    return value * (1 / 256)


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert by the file's own ICC profile; one that is broken or does not fit is ignored."""
    if profile and picture.mode in _PROFILED:
        try:
            return _converted(picture, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return picture if picture.mode in _PLAIN else picture.convert("RGB")


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if picture.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        picture = picture.convert("RGB")
    if picture.mode != "RGBA":
        return _apply(picture, source)
    colours = _apply(picture.convert("RGB"), source)
    colours.putalpha(picture.getchannel("A"))
    return colours


def _apply(picture: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    if converted is None:
        raise ValueError("no conversion")
    return converted


def has_alpha(picture: Image.Image) -> bool:
    """Say whether anything can be seen through the picture."""
    return picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255)
