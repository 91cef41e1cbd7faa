"""Primaries of colour spaces (ITU-T H.273), and the arithmetic from one to another."""

from collections.abc import Sequence

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
    """Compute the matrix from linear red, green and blue to XYZ, adapted to D50; ValueError when there is none."""
    return _product(_adaptation(_white(chromaticities)), _to_xyz(chromaticities))


def between(source: Sequence[float], target: Sequence[float]) -> Matrix:
    """Compute the matrix from one space's linear colours to another's."""
    return _product(_inverse(to_d50(target)), to_d50(source))


def luminances(chromaticities: Sequence[float]) -> Vector:
    """Say how much red, green and blue add to the luminance of white, which is 1."""
    return _to_xyz(chromaticities)[1]


def times(matrix: Matrix, vector: Vector) -> Vector:
    """Multiply."""
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
    r, g, b = times(_inverse(unscaled), _white(chromaticities))
    return tuple((row[0] * r, row[1] * g, row[2] * b) for row in unscaled)  # type: ignore[return-value]


def _adaptation(white: Vector) -> Matrix:
    """Compute the chromatic adaptation from a white to D50 (Bradford)."""
    source, target = times(_BRADFORD, white), times(_BRADFORD, D50)
    if min(abs(value) for value in source) < 1e-9:  # noqa: PLR2004 - no colour that eyes could adapt to
        raise ValueError("no white")
    ratios = [b / a for a, b in zip(source, target, strict=True)]
    scaled: Matrix = tuple((row[0] * k, row[1] * k, row[2] * k) for row, k in zip(_BRADFORD, ratios, strict=True))  # type: ignore[assignment]
    return _product(_inverse(_BRADFORD), scaled)


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = [times(one, (other[0][at], other[1][at], other[2][at])) for at in range(3)]
    return tuple((columns[0][row], columns[1][row], columns[2][row]) for row in range(3))  # type: ignore[return-value]


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
