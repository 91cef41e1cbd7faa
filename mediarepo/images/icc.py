"""ICC profiles made for colours that a file describes by numbers (ICC.1:2001-04; ITU-T H.273 for code points)."""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from mediarepo.images.hdr import HLG, PQ, HighRange
from mediarepo.images.primaries import BT_709, D50, PRIMARIES, to_d50

Colours = bytes | HighRange
"""How stored colours are meant, where that is not sRGB: an ICC profile, or brighter than white."""

_CURVE_POINTS = 4096
_TELEVISION = {1, 6, 11, 14, 15}
_SRGB = 13
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_SMPTE_240, _SMPTE_428 = 7, 17
_LARGEST = 32_767.0


def is_known(primaries: int, transfer: int) -> bool:
    """Say whether H.273 code points tell anything."""
    transfers = _TELEVISION | _GAMMAS.keys() | {_SRGB, _SMPTE_240, _SMPTE_428, PQ, HLG}
    return primaries in PRIMARIES and transfer in transfers


def colours_of_code_points(primaries: int, transfer: int, *, television_gamma: float | None) -> Colours | None:
    """Read H.273 code points; None for sRGB and for what is not known.

    `television_gamma` is the exponent of the transfers of television, None to take them for sRGB's: browsers show them
    in the one way in PNG and in the other in AVIF.
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
    """Make the profile of chromaticities (white, red, green, blue, x and y each; None: sRGB's) and a transfer.

    `gamma` is the exponent from stored values to light, None for sRGB's curve. None for what is no colour space.
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
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - IEC 61966-2-1


def _smpte_240(value: float) -> float:
    return value / 4 if value < 0.0913 else ((value + 0.1115) / 1.1115) ** (1 / 0.45)  # noqa: PLR2004 - SMPTE 240M
