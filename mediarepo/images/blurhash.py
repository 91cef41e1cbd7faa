"""Encodes BlurHashes: a picture's few strongest cosine waves, in about thirty characters (blurha.sh, MSC2448)."""

import math

from PIL import Image

_ACROSS, _DOWN = 4, 3
_SIDE = 32
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"
_Wave = tuple[float, float, float]


def encode_blurhash(picture: Image.Image) -> str:
    """Encode a picture, which is made small first; what can be seen through is white."""
    seen = picture.convert("RGBA")
    small = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    lights = [_light(value) for value in range(256)]
    data = small.tobytes()
    pixels = [(lights[data[at]], lights[data[at + 1]], lights[data[at + 2]]) for at in range(0, len(data), 3)]
    mean, *others = (_wave(pixels, small.width, small.height, x, y) for y in range(_DOWN) for x in range(_ACROSS))
    strongest = max(abs(value) for wave in others for value in wave)
    scale = max(0, min(82, math.floor(strongest * 166 - 0.5)))
    return (
        _base_83(_ACROSS - 1 + (_DOWN - 1) * 9, 1)
        + _base_83(scale, 1)
        + _base_83(sum(_stored(value) << shift for value, shift in zip(mean, (16, 8, 0), strict=True)), 4)
        + "".join(_base_83(_quantized(wave, (scale + 1) / 166), 2) for wave in others)
    )


def _wave(pixels: list[_Wave], width: int, height: int, across: int, down: int) -> _Wave:
    """Return how much of one cosine wave there is in each colour."""
    columns = [math.cos(math.pi * across * x / width) for x in range(width)]
    rows = [math.cos(math.pi * down * y / height) for y in range(height)]
    red = green = blue = 0.0
    for y, row in enumerate(rows):
        for column, pixel in zip(columns, pixels[y * width : (y + 1) * width], strict=True):
            red, green, blue = (
                red + row * column * pixel[0],
                green + row * column * pixel[1],
                blue + row * column * pixel[2],
            )
    share = (1 if across == down == 0 else 2) / len(pixels)
    return red * share, green * share, blue * share


def _quantized(wave: _Wave, strongest: float) -> int:
    """Write a wave as three digits of base 19, each the square root of its share of the strongest."""
    number = 0
    for value in wave:
        share = math.copysign(math.sqrt(abs(value / strongest)), value)
        number = number * 19 + max(0, min(18, math.floor(share * 9 + 9.5)))
    return number


def _light(value: int) -> float:
    """Return the light of an sRGB value."""
    share = value / 255
    return float(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)


def _stored(light: float) -> int:
    """Return the sRGB value of light."""
    light = max(0.0, min(1.0, light))
    return round(255 * (light * 12.92 if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


def _base_83(number: int, digits: int) -> str:
    return "".join(_DIGITS[number // 83**place % 83] for place in reversed(range(digits)))
