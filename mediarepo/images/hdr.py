"""Colours brighter than white (PQ and HLG, ITU-R BT.2100), brought down to what ordinary screens show.

As browsers do it: light up to white is halved, what is brighter is bent into the other half (SMPTE ST 2094-50,
reference white tone mapping), with one gain for red, green and blue, that of the strongest of them in BT.2020.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageFilter

from mediarepo.images.primaries import BT_709, BT_2020, PRIMARIES, Matrix, Vector, between, luminances, times

PQ, HLG = 16, 18
_SIZE = 33
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_PEAK = _PEAK_NITS / _WHITE_NITS
_BRIGHTEST, _EVENNESS = 4000.0 / _WHITE_NITS, 3.0
_KNEE = (1.0, 0.5)
_MIDDLE = (1.65, 0.825)


@dataclass(frozen=True, slots=True)
class HighRange:
    """Colours by their H.273 code points, with a transfer of PQ or HLG."""

    primaries: int
    transfer: int


def to_screen(picture: Image.Image, colours: HighRange) -> Image.Image:
    """Convert a picture, RGB or RGBA, to sRGB."""
    if colours.transfer == PQ:
        curve = [round(255 * min(_pq(value / 255) / _BRIGHTEST, 1.0) ** (1 / _EVENNESS)) for value in range(256)]
        identity = list(range(256))
        picture = picture.point(curve * 3 + (identity if picture.mode == "RGBA" else []))
    return picture.filter(_table(colours))


def _evened(value: float) -> float:
    """Return the light of a PQ value that was brought into even steps, between which tables can be interpolated."""
    return float(value**_EVENNESS * _BRIGHTEST)


@lru_cache(maxsize=8)
def _table(colours: HighRange) -> ImageFilter.Color3DLUT:
    chromaticities = PRIMARIES[colours.primaries]
    wide, narrow = between(chromaticities, BT_2020), between(BT_2020, BT_709)
    weights = luminances(chromaticities)
    lights = [(_evened if colours.transfer == PQ else _hlg)(index / (_SIZE - 1)) for index in range(_SIZE)]
    table = list[float]()
    for blue in lights:
        for green in lights:
            for red in lights:
                light: Vector = (red, green, blue)
                if colours.transfer == HLG:
                    light = _displayed(light, weights)
                table += _shown(light, wide, narrow)
    return ImageFilter.Color3DLUT(_SIZE, table)


def _shown(light: Vector, wide: Matrix, narrow: Matrix) -> Vector:
    """Map light, 1 being white, to stored sRGB."""
    light = times(wide, light)
    strongest = max(*light, 1e-9)
    gain = _mapped(strongest) / strongest
    red, green, blue = times(narrow, (light[0] * gain, light[1] * gain, light[2] * gain))
    return _stored(red), _stored(green), _stored(blue)


def _mapped(light: float) -> float:
    """Halve light up to white; bend what is brighter along a quadratic Bezier curve to 1 at the peak."""
    if light <= _KNEE[0]:
        return light * _KNEE[1]
    if light >= _PEAK:
        return 1.0
    a, b, c = _KNEE[0] - 2 * _MIDDLE[0] + _PEAK, 2 * (_MIDDLE[0] - _KNEE[0]), _KNEE[0] - light
    t = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return _KNEE[1] * (1 - t) ** 2 + 2 * _MIDDLE[1] * t * (1 - t) + t * t


def _stored(light: float) -> float:
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055  # noqa: PLR2004 - IEC 61966-2-1


def _pq(value: float) -> float:
    """Return the light of a PQ value (SMPTE ST 2084), 1 being white."""
    power = value ** (1 / 78.84375)
    linear = (max(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return float(linear * 10_000 / _WHITE_NITS)


def _hlg(value: float) -> float:
    """Return the light of the scene for an HLG value (ITU-R BT.2100), 1 being the peak."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return value * value / 3 if value <= 0.5 else (math.exp((value - c) / a) + b) / 12  # noqa: PLR2004 - BT.2100


def _displayed(scene: Vector, weights: Vector) -> Vector:
    """Apply HLG's system gamma to the light of a scene; 1 is white."""
    luminance = sum(light * weight for light, weight in zip(scene, weights, strict=True))
    factor = max(luminance, 1e-9) ** 0.2 * _PEAK
    return scene[0] * factor, scene[1] * factor, scene[2] * factor
