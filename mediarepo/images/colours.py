"""From whatever colours a file has to sRGB or grey, eight bits each, with or without alpha."""

from io import BytesIO

from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_PLAIN = {"L", "RGB", "RGBA"}
_PROFILED = {"L", "RGB", "RGBA", "CMYK"}


def to_scalable(picture: Image.Image) -> Image.Image:
    """Bring a decoded picture into a mode that can be resized well and converted later."""
    if picture.mode in {"I;16", "I;16L", "I;16B", "I;16N"}:
        return picture.convert("I").point(_high_byte).convert("L")
    if picture.mode == "I":
        lowest, highest = _extrema(picture)
        return (picture.point(_high_byte) if highest > 255 or lowest < 0 else picture).convert("L")  # noqa: PLR2004
    if picture.mode in {"1", "F"}:
        return picture.convert("L")
    if picture.mode in {"P", "L", "RGB"} and "transparency" in picture.info:
        return picture.convert("RGBA")
    if picture.mode in {"LA", "La", "PA", "RGBa"}:
        return picture.convert("RGBA")
    return picture if picture.mode in _PLAIN | {"CMYK"} else picture.convert("RGB")


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
