"""ICC profiles made for colours that a file describes by numbers (ICC.1:2001-04; ITU-T H.273 for code points)."""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D65 = (0.3127, 0.3290)
_BT_709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: _BT_709,
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_SRGB_LIKE = {1, 2, 6, 13, 14, 15}
"""Transfers that screens show as sRGB's: those of television, and sRGB's own."""
_GAMMA_22, _GAMMA_28, _LINEAR, _PQ, _HLG = 4, 5, 8, 16, 18
_CURVE_POINTS = 4096
_SDR_WHITE_NITS, _PQ_PEAK_NITS, _HLG_PEAK_NITS = 203.0, 10_000.0, 1_000.0

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


def profile_of_code_points(primaries: int, transfer: int) -> bytes | None:
    """Make the profile of H.273 code points; None for sRGB, and for what is not known.

    Brighter than white (PQ, HLG) is rolled off towards white, as browsers do on ordinary screens.
    """
    chromaticities = _PRIMARIES.get(primaries, _BT_709)
    if transfer in _SRGB_LIKE or transfer not in {_GAMMA_22, _GAMMA_28, _LINEAR, _PQ, _HLG}:
        return None if chromaticities is _BT_709 else matrix_profile(chromaticities, gamma=None)
    if transfer in {_PQ, _HLG}:
        return _profile(tuple(chromaticities), _curve(_pq if transfer == _PQ else _hlg))
    return matrix_profile(chromaticities, gamma={_GAMMA_22: 2.2, _GAMMA_28: 2.8, _LINEAR: 1.0}[transfer])


def matrix_profile(chromaticities: Sequence[float] | None, *, gamma: float | None) -> bytes:
    """Make the profile of chromaticities (white, red, green, blue, x and y each; None: sRGB's) and a transfer.

    `gamma` is the exponent from stored values to light, None for sRGB's curve.
    """
    exponent = None if gamma is None else min(max(gamma, 0.1), 20.0)
    curve = _curve(_srgb) if exponent is None else _curve(lambda value: value**exponent)
    return _profile(tuple(chromaticities or _BT_709), curve)


@lru_cache(maxsize=64)
def _profile(chromaticities: tuple[float, ...], curve: bytes) -> bytes:
    columns = _to_d50(chromaticities)
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\x00" + bytes(78)),
        (b"cprt", b"text" + bytes(4) + b"CC0\x00"),
        (b"wtpt", _xyz(_D50)),
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
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def _xyz(vector: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in vector))


def _to_d50(chromaticities: Sequence[float]) -> list[Vector]:
    """Compute the primaries' XYZ, scaled to their white and adapted to D50 (Bradford)."""
    white, red, green, blue = (_xyz_of(*chromaticities[at : at + 2]) for at in (0, 2, 4, 6))
    unscaled: Matrix = ((red[0], green[0], blue[0]), (red[1], green[1], blue[1]), (red[2], green[2], blue[2]))
    scale = _times(_inverse(unscaled), white)
    adapt = _adaptation(white)
    return [
        _times(adapt, (one[0] * factor, one[1] * factor, one[2] * factor))
        for one, factor in zip((red, green, blue), scale, strict=True)
    ]


def _xyz_of(x: float, y: float) -> Vector:
    return x / y, 1.0, (1 - x - y) / y


def _adaptation(white: Vector) -> Matrix:
    source, target = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    ratios = [b / a for a, b in zip(source, target, strict=True)]
    scaled = tuple(tuple(value * ratio for value in row) for row, ratio in zip(_BRADFORD, ratios, strict=True))
    inverse = _inverse(_BRADFORD)
    columns = [_times(inverse, (scaled[0][at], scaled[1][at], scaled[2][at])) for at in range(3)]
    return tuple((columns[0][row], columns[1][row], columns[2][row]) for row in range(3))  # type: ignore[return-value]


def _times(matrix: Matrix, vector: Vector) -> Vector:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)  # type: ignore[return-value]


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:  # noqa: PLR2004 - primaries on one line
        raise ValueError("no colour space")
    k = 1 / determinant
    return (
        ((e * i - f * h) * k, (c * h - b * i) * k, (b * f - c * e) * k),
        ((f * g - d * i) * k, (a * i - c * g) * k, (c * d - a * f) * k),
        ((d * h - e * g) * k, (b * g - a * h) * k, (a * e - b * d) * k),
    )


def _curve(light: Callable[[float], float]) -> bytes:
    """Write a transfer from stored values (0 to 1) to light (0 to 1) as a table."""
    points = [light(index / (_CURVE_POINTS - 1)) for index in range(_CURVE_POINTS)]
    values = [round(min(max(point, 0.0), 1.0) * 65535) for point in points]
    return b"curv" + bytes(4) + struct.pack(f">I{_CURVE_POINTS}H", _CURVE_POINTS, *values)


def _srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - IEC 61966-2-1


def _pq(value: float) -> float:
    """Return the light of a PQ value (SMPTE ST 2084), brought down to what a screen shows."""
    power = value ** (1 / 78.84375)
    linear = (max(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return _rolled_off(linear * 10_000, _PQ_PEAK_NITS)


def _hlg(value: float) -> float:
    """Return the light of an HLG value (ITU-R BT.2100), brought down to what a screen shows."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = value * value / 3 if value <= 0.5 else (math.exp((value - c) / a) + b) / 12  # noqa: PLR2004 - BT.2100
    return _rolled_off(scene**1.2 * _HLG_PEAK_NITS, _HLG_PEAK_NITS)


def _rolled_off(nits: float, peak_nits: float) -> float:
    """Map light to 0 to 1, the peak to 1 (Reinhard's extended curve)."""
    value, peak = nits / _SDR_WHITE_NITS, peak_nits / _SDR_WHITE_NITS
    return value * (1 + value / (peak * peak)) / (1 + value)
