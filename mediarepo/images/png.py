"""PNG files read by their structure (W3C PNG, third edition): what is not the picture is left out before it is decoded.

Browsers skip ancillary chunks that are broken, unknown or huge; decoders give up on some of them.
"""

import struct
import zlib
from dataclasses import dataclass

from mediarepo.images.icc import matrix_profile, profile_of_code_points

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_KEPT = _CRITICAL | {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_MAX_EXIF_BYTES = 256 * 1024
_MAX_PROFILE_BYTES = 4 * 1024 * 1024
_MAX_CHUNKS = 200_000
_ANCILLARY_BIT = 0x20
_GREY, _TRUE_COLOUR = 0, 2
_SRGB_GAMMA = 0.45455
_SAME_GAMMA = 0.02


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG without what is not its picture.

    `profile` is the ICC profile of its colours, None for sRGB. `colour_key` is the sample, or the red, green and blue
    samples, that are transparent, as they are stored, of `bit_depth` bits each; None without.
    """

    data: bytes
    profile: bytes | None
    exif: bytes | None
    bit_depth: int
    colour_key: tuple[int, ...] | None


def read_png(data: bytes) -> PngFile:
    """Walk the chunks, keep those of the picture, and read those that say how it is meant.

    A file that ends early keeps what there is of its last chunk; bytes behind IEND are left out.
    """
    kept, meant = [_SIGNATURE], dict[bytes, bytes]()
    at, chunks = len(_SIGNATURE), 0
    while at + 8 <= len(data) and chunks < _MAX_CHUNKS:
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if _is_kept(data, at, size, kind):
            kept.append(data[at:end])
        elif kind not in meant and kind[0] & _ANCILLARY_BIT and size <= len(data) and _has_right_crc(data, at, size):
            meant[kind] = data[at + 8 : at + 8 + size]
        if kind == b"IEND" or (end > len(data) and kind in _CRITICAL):
            break
        at, chunks = (min(end, len(data))), chunks + 1
    header = data[16:29]
    depth, colour_type = (header[8], header[9]) if len(header) >= 10 else (8, _TRUE_COLOUR)  # noqa: PLR2004 - up to both
    exif = meant.get(b"eXIf")
    return PngFile(
        data=b"".join(kept),
        profile=_profile(meant),
        exif=exif if exif is not None and len(exif) <= _MAX_EXIF_BYTES else None,
        bit_depth=depth,
        colour_key=_colour_key(data, colour_type),
    )


def _is_kept(data: bytes, at: int, size: int, kind: bytes) -> bool:
    if kind in _CRITICAL:
        return True
    return kind in _KEPT and _has_right_crc(data, at, size)


def _has_right_crc(data: bytes, at: int, size: int) -> bool:
    end = at + 8 + size
    return end + 4 <= len(data) and zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _colour_key(data: bytes, colour_type: int) -> tuple[int, ...] | None:
    """Read tRNS of pictures without a palette: one transparent sample for grey, three for true colour."""
    samples = {_GREY: 1, _TRUE_COLOUR: 3}.get(colour_type)
    at = data.find(b"tRNS", 8, 8 + 1024 * 1024)
    if samples is None or at < 0:
        return None
    size = int.from_bytes(data[at - 4 : at], "big")
    if size < 2 * samples or not _has_right_crc(data, at - 4, size):
        return None
    return struct.unpack_from(f">{samples}H", data, at + 4)


def _profile(meant: dict[bytes, bytes]) -> bytes | None:
    """Choose how the colours are meant: cICP, then iCCP, sRGB, and gAMA with cHRM (section 4.3)."""
    cicp = meant.get(b"cICP", b"")
    if len(cicp) == 4:  # noqa: PLR2004 - its fixed size
        return profile_of_code_points(cicp[0], cicp[1])
    if b"iCCP" in meant and (profile := _icc_profile(meant[b"iCCP"])) is not None:
        return profile
    if b"sRGB" in meant:
        return None
    gamma = _number(meant.get(b"gAMA"), 0)
    primaries = [_number(meant.get(b"cHRM"), index) for index in range(8)]
    known = [value for value in primaries if value is not None]
    chromaticities = known if len(known) == 8 and all(0 < value < 1 for value in known[1::2]) else None  # noqa: PLR2004 - white and three primaries
    if gamma is None or gamma <= 0:
        return None
    if chromaticities is None and abs(gamma - _SRGB_GAMMA) < _SAME_GAMMA:
        return None
    return matrix_profile(chromaticities, gamma=1 / gamma)


def _number(chunk: bytes | None, index: int) -> float | None:
    """Read an integer of hundred-thousandths; None where the chunk is too short."""
    if chunk is None or len(chunk) < 4 * index + 4:
        return None
    return float(struct.unpack_from(">I", chunk, 4 * index)[0] / 100_000)


def _icc_profile(chunk: bytes) -> bytes | None:
    """Unpack a profile, never beyond the bound; one that is larger or broken is ignored."""
    _, separator, packed = chunk.partition(b"\x00")
    if not separator or packed[:1] != b"\x00":
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacking.eof else None
