"""Colour primaries, HDR transfer functions and ICC profiles (ITU-T H.273, BT.2100, ICC.1:2001-04).

HDR is tone-mapped as browsers do it: light up to white is halved, what is brighter is bent into the other half
(SMPTE ST 2094-50, reference white tone mapping), with one gain for red, green and blue, that of the strongest of them
in BT.2020.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageFilter

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

_D65 = (0.3127, 0.3290)
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
D50: Vector = (0.9642, 1.0, 0.8249)
BT_709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
BT_2020 = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
PRIMARIES: dict[int, tuple[float, ...]] = {
    1: BT_709,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: BT_2020,
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""White, red, green, blue: x and y of each."""


def to_d50(chromaticities: Sequence[float]) -> Matrix:
    """Return the matrix from linear RGB to XYZ adapted to D50. Raises ValueError for impossible chromaticities."""
    return _product(_adaptation(_white(chromaticities)), _to_xyz(chromaticities))


def conversion_matrix(source: Sequence[float], target: Sequence[float]) -> Matrix:
    """Return the matrix from one space's linear RGB to another's."""
    return _product(_inverse(to_d50(target)), to_d50(source))


def luminances(chromaticities: Sequence[float]) -> Vector:
    """Return the shares of red, green and blue in the luminance of white, which is 1."""
    return _to_xyz(chromaticities)[1]


def matrix_times(matrix: Matrix, vector: Vector) -> Vector:
    """Multiply two 3x3 matrices."""
    x, y, z = vector
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z


def _white(chromaticities: Sequence[float]) -> Vector:
    x, y = chromaticities[:2]
    if y <= 0:
        raise ValueError("no white")
    return x / y, 1.0, (1 - x - y) / y


def _to_xyz(chromaticities: Sequence[float]) -> Matrix:
    """Scale the primaries so that all together are white."""
    red, green, blue = ((x, y, 1 - x - y) for x, y in (chromaticities[at : at + 2] for at in (2, 4, 6)))
    unscaled: Matrix = ((red[0], green[0], blue[0]), (red[1], green[1], blue[1]), (red[2], green[2], blue[2]))
    r, g, b = matrix_times(_inverse(unscaled), _white(chromaticities))
    return tuple((row[0] * r, row[1] * g, row[2] * b) for row in unscaled)  # type: ignore[return-value]


def _adaptation(white: Vector) -> Matrix:
    """Compute the chromatic adaptation from a white to D50 (Bradford)."""
    source, target = matrix_times(_BRADFORD, white), matrix_times(_BRADFORD, D50)
    if min(abs(value) for value in source) < 1e-9:
        raise ValueError("no white")
    ratios = [b / a for a, b in zip(source, target, strict=True)]
    scaled: Matrix = tuple((row[0] * k, row[1] * k, row[2] * k) for row, k in zip(_BRADFORD, ratios, strict=True))  # type: ignore[assignment]
    return _product(_inverse(_BRADFORD), scaled)


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = [matrix_times(one, (other[0][at], other[1][at], other[2][at])) for at in range(3)]
    return tuple((columns[0][row], columns[1][row], columns[2][row]) for row in range(3))  # type: ignore[return-value]


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ValueError("no colour space")
    k = 1 / determinant
    return (
        ((e * i - f * h) * k, (c * h - b * i) * k, (b * f - c * e) * k),
        ((f * g - d * i) * k, (a * i - c * g) * k, (c * d - a * f) * k),
        ((d * h - e * g) * k, (b * g - a * h) * k, (a * e - b * d) * k),
    )


PQ, HLG = 16, 18
_SIZE = 33
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_PEAK = _PEAK_NITS / _WHITE_NITS
_BRIGHTEST, _EVENNESS = 4000.0 / _WHITE_NITS, 3.0
_KNEE = (1.0, 0.5)
_MIDDLE = (1.65, 0.825)


@dataclass(frozen=True, slots=True)
class HighRange:
    """A colour space with a PQ or HLG transfer function (H.273 code points)."""

    primaries: int
    transfer: int


def tone_map(picture: Image.Image, colours: HighRange) -> Image.Image:
    """Convert an RGB or RGBA image to sRGB."""
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
    wide, narrow = conversion_matrix(chromaticities, BT_2020), conversion_matrix(BT_2020, BT_709)
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
    light = matrix_times(wide, light)
    strongest = max(*light, 1e-9)
    gain = _mapped(strongest) / strongest
    red, green, blue = matrix_times(narrow, (light[0] * gain, light[1] * gain, light[2] * gain))
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
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _pq(value: float) -> float:
    """Return the light of a PQ value (SMPTE ST 2084), 1 being white."""
    power = value ** (1 / 78.84375)
    linear = (max(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return float(linear * 10_000 / _WHITE_NITS)


def _hlg(value: float) -> float:
    """Return the light of the scene for an HLG value (ITU-R BT.2100), 1 being the peak."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return value * value / 3 if value <= 0.5 else (math.exp((value - c) / a) + b) / 12


def _displayed(scene: Vector, weights: Vector) -> Vector:
    """Apply HLG's system gamma to the light of a scene; 1 is white."""
    luminance = sum(light * weight for light, weight in zip(scene, weights, strict=True))
    factor = max(luminance, 1e-9) ** 0.2 * _PEAK
    return scene[0] * factor, scene[1] * factor, scene[2] * factor


Colours = bytes | HighRange
"""How stored colours are meant, where that is not sRGB: an ICC profile, or brighter than white."""

_CURVE_POINTS = 4096
_TELEVISION = {1, 6, 11, 14, 15}
_SRGB = 13
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_SMPTE_240, _SMPTE_428 = 7, 17
_LARGEST = 32_767.0


def is_known(primaries: int, transfer: int) -> bool:
    """Return whether H.273 code points have a meaning."""
    transfers = _TELEVISION | _GAMMAS.keys() | {_SRGB, _SMPTE_240, _SMPTE_428, PQ, HLG}
    return primaries in PRIMARIES and transfer in transfers


def colours_of_code_points(primaries: int, transfer: int, *, television_gamma: float | None) -> Colours | None:
    """Return the colour space of H.273 code points; None for sRGB and unknown ones.

    `television_gamma` is the exponent of television transfer functions, None to treat them as sRGB's: browsers show
    them the one way in PNG and the other way in AVIF.
    """
    if primaries not in PRIMARIES:
        primaries = 1
    if transfer in {PQ, HLG}:
        return HighRange(primaries, transfer)
    chromaticities = PRIMARIES[primaries]
    if transfer == _SMPTE_240:
        return _profile(chromaticities, _curve(_smpte_240))
    if transfer == _SMPTE_428:
        return _profile(chromaticities, _curve(lambda value: value**2.6 * 52.37 / 48))
    gamma = television_gamma if transfer in _TELEVISION else _GAMMAS.get(transfer)
    if gamma is None and chromaticities is BT_709:
        return None
    return matrix_profile(chromaticities, gamma=gamma)


def matrix_profile(chromaticities: Sequence[float] | None, *, gamma: float | None) -> bytes | None:
    """Return the ICC profile of chromaticities (white, red, green, blue; x and y each; None: sRGB's) and a transfer.

    `gamma` is the exponent from stored values to light, None for sRGB's curve. Returns None for an impossible colour
    space.
    """
    curve = _curve(_srgb) if gamma is None else _curve(lambda value: value**gamma)
    try:
        return _profile(tuple(chromaticities or BT_709), curve)
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _profile(chromaticities: tuple[float, ...], curve: bytes) -> bytes:
    rows = to_d50(chromaticities)
    if max(abs(value) for row in rows for value in row) >= _LARGEST:
        raise ValueError("no colour space")
    columns = [[row[at] for row in rows] for at in range(3)]
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\x00" + bytes(78)),
        (b"cprt", b"text" + bytes(4) + b"CC0\x00"),
        (b"wtpt", _xyz(D50)),
        (b"rXYZ", _xyz(columns[0])),
        (b"gXYZ", _xyz(columns[1])),
        (b"bXYZ", _xyz(columns[2])),
        (b"rTRC", curve),
        (b"gTRC", curve),
        (b"bTRC", curve),
    ]
    return _assembled(tags)


def _assembled(tags: list[tuple[bytes, bytes]]) -> bytes:
    """Write header, tag table and data, each tag on a boundary of four bytes."""
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def _xyz(vector: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in vector))


def _curve(light: Callable[[float], float]) -> bytes:
    """Write a transfer from stored values (0 to 1) to light (0 to 1) as a table."""
    points = [light(index / (_CURVE_POINTS - 1)) for index in range(_CURVE_POINTS)]
    values = [round(min(max(point, 0.0), 1.0) * 65535) for point in points]
    return b"curv" + bytes(4) + struct.pack(f">I{_CURVE_POINTS}H", _CURVE_POINTS, *values)


def _srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _smpte_240(value: float) -> float:
    return value / 4 if value < 0.0913 else ((value + 0.1115) / 1.1115) ** (1 / 0.45)
