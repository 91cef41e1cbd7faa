"""PNG files, parsed by chunk (W3C PNG, third edition).

Browsers skip ancillary chunks that are broken, unknown, huge or in the wrong place; decoders give up on some of them.
So what is not the picture is left out before it is decoded; transparent colours and rows that a truncated file does not
have are handled afterwards.
"""

import io
import math
import struct
import zlib
from dataclasses import dataclass, field

from PIL import Image, ImageChops, ImageCms, PngImagePlugin

from mediarepo.images.color_profiles import Colours, colours_of_code_points, is_known, matrix_profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_PIXELS = {b"IDAT", b"fdAT"}
"""Chunks whose checksum nobody looks at: a broken picture is better than none."""
_MOVING = {b"acTL", b"fcTL", b"fdAT"}
_FIXED_BYTES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
_MAX_EXIF_BYTES = 256 * 1024
_MAX_PROFILE_BYTES = 4 * 1024 * 1024
_MAX_PROFILE_NAME = 79
_MAX_CHUNKS = 200_000
_ANCILLARY_BIT = 0x20
_GREY, _TRUE_COLOUR, _INDEXED = 0, 2, 3
_HEADER_BYTES = 13
_SRGB_GAMMA = 0.45455
_SAME_GAMMA = 0.02
_TELEVISION_GAMMA = 2.4
_FULL_RANGE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PngFile:
    """A PNG reduced to its picture.

    `data` is the still picture, `moving` the chunks of an animation with their types. `colours` is the colour space,
    None for sRGB. `colour_key` is the transparent sample, or red, green and blue samples, as stored, of `bit_depth`
    bits each; None without one. `common` are the chunks that all frames need.
    """

    data: bytes
    moving: list[tuple[bytes, bytes]]
    common: bytes
    colours: Colours | None
    exif: bytes | None
    header: bytes
    colour_key: tuple[int, ...] | None
    is_whole: bool

    @property
    def bit_depth(self) -> int:
        """Bits per sample."""
        return self.header[8]

    @property
    def colour_type(self) -> int:
        """The IHDR colour type: grey, true colour or indexed; with or without alpha."""
        return self.header[9]

    @property
    def is_interlaced(self) -> bool:
        """Whether the image is interlaced (Adam7, seven passes)."""
        return self.header[12] != 0


@dataclass(slots=True)
class _Walk:
    """What was found so far."""

    kept: list[bytes] = field(default_factory=list)
    moving: list[tuple[bytes, bytes]] = field(default_factory=list)
    meant: dict[bytes, bytes] = field(default_factory=dict)
    common: list[bytes] = field(default_factory=list)
    header: bytes = b""
    has_picture: bool = False
    has_palette: bool = False
    is_whole: bool = False

    def take(self, kind: bytes, chunk: bytes, *, whole: bool) -> None:
        """Sort a chunk to where it belongs; `whole` is one that is all there, with the right checksum."""
        content = chunk[8:-4] if whole else chunk[8:]
        if kind == b"IHDR":
            self.header = self.header or content[:_HEADER_BYTES]
        self.has_picture = self.has_picture or kind == b"IDAT"
        self.has_palette = self.has_palette or kind == b"PLTE"
        if kind in _CRITICAL:
            self.kept.append(chunk)
            if kind == b"PLTE":
                self.common.append(chunk)
            if kind == b"IDAT":
                self.moving.append((kind, content))
        elif not whole or not kind[0] & _ANCILLARY_BIT:
            return
        elif kind in _MOVING:
            self.moving.append((kind, content))
        elif not self.has_picture and kind not in self.meant and len(content) == _FIXED_BYTES.get(kind, len(content)):
            self._take_meaning(kind, chunk, content)

    def _take_meaning(self, kind: bytes, chunk: bytes, content: bytes) -> None:
        indexed = self.header[9:10] == bytes((_INDEXED,))
        if (kind == b"tRNS" and indexed and not self.has_palette) or (kind == b"cICP" and self.has_palette):
            return
        self.meant[kind] = content
        if kind == b"tRNS" and indexed:
            self.kept.append(chunk)
            self.common.append(chunk)


def read_png(data: bytes) -> PngFile:
    """Parse the chunks, keep those of the picture, and read its colour space.

    A truncated file keeps what there is of its last chunk; bytes after IEND are left out.
    """
    walk = _Walk()
    at, chunks = len(SIGNATURE), 0
    while at + 8 <= len(data) and chunks < _MAX_CHUNKS:
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        whole = end <= len(data) and (kind in _PIXELS or _has_right_crc(data, at, size))
        if whole or kind in _CRITICAL:
            walk.take(kind, data[at:end], whole=whole)
        if kind == b"IEND" or (end > len(data) and kind in _CRITICAL):
            walk.is_whole = kind == b"IEND"
            break
        at, chunks = min(end, len(data)), chunks + 1
    header = walk.header.ljust(_HEADER_BYTES, b"\x00")
    exif = walk.meant.get(b"eXIf", b"")
    return PngFile(
        data=SIGNATURE + b"".join(walk.kept),
        moving=walk.moving,
        common=b"".join(walk.common),
        colours=_colours(walk.meant),
        exif=exif if exif[:2] in {b"II", b"MM"} and len(exif) <= _MAX_EXIF_BYTES else None,
        header=header,
        colour_key=_colour_key(walk.meant.get(b"tRNS", b""), header[9]),
        is_whole=walk.is_whole,
    )


def _has_right_crc(data: bytes, at: int, size: int) -> bool:
    end = at + 8 + size
    return zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _colour_key(content: bytes, colour_type: int) -> tuple[int, ...] | None:
    """Read tRNS of pictures without a palette: one transparent sample for grey, three for true colour."""
    samples = {_GREY: 1, _TRUE_COLOUR: 3}.get(colour_type)
    if samples is None or len(content) < 2 * samples:
        return None
    return struct.unpack_from(f">{samples}H", content)


def _colours(meant: dict[bytes, bytes]) -> Colours | None:
    """Choose how the colours are meant: cICP, then iCCP, sRGB, and gAMA with cHRM (section 4.3)."""
    cicp = meant.get(b"cICP", b"")
    if cicp and cicp[2:] == bytes((0, _FULL_RANGE)) and is_known(cicp[0], cicp[1]):
        return colours_of_code_points(cicp[0], cicp[1], television_gamma=_TELEVISION_GAMMA)
    if b"iCCP" in meant and (profile := _icc_profile(meant[b"iCCP"])) is not None:
        return profile
    if b"sRGB" in meant or b"gAMA" not in meant:
        return None
    gamma = _numbers(meant[b"gAMA"])[0]
    chromaticities = _numbers(meant.get(b"cHRM", b""))
    if gamma <= 0 or (chromaticities and not all(chromaticities[1::2])):
        return None
    if not chromaticities and abs(gamma - _SRGB_GAMMA) < _SAME_GAMMA:
        return None
    return matrix_profile(chromaticities or None, gamma=1 / gamma)


def _numbers(content: bytes) -> list[float]:
    """Read integers of hundred-thousandths."""
    return [value / 100_000 for value in struct.unpack(f">{len(content) // 4}I", content)]


def _icc_profile(chunk: bytes) -> bytes | None:
    """Unpack a profile, never beyond the bound; one that is larger or broken is ignored."""
    name, separator, packed = chunk.partition(b"\x00")
    if not separator or packed[:1] != b"\x00" or not 1 <= len(name) <= _MAX_PROFILE_NAME:
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], _MAX_PROFILE_BYTES)
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (zlib.error, OSError, ImageCms.PyCMSError):
        return None
    return profile if unpacking.eof else None


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and CRC."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: left, top, and the distances of pixels; each fills the gaps of those before it."""
_GRIDS = ((8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2), (1, 1))
"""How far apart pixels are, across and down, after each of the passes."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PIECE_BYTES = 4096
_ZLIB_HEADER_BYTES = 2
_SIXTEEN = 16


def opacity(picture: Image.Image, png: PngFile) -> Image.Image | None:
    """Return the mask of the file's colour key; None without one."""
    key = png.colour_key
    if key is None:
        return None
    if picture.mode in {"I;16", "I;16L", "I;16B", "I;16N", "I"}:
        return picture.convert("I").point([0 if value == key[0] else 255 for value in range(65536)], "L")
    bands = (picture.convert("L") if picture.mode == "1" else picture).split()
    if len(bands) != len(key):
        return None
    most = (1 << png.bit_depth) - 1
    if png.bit_depth == _SIXTEEN:
        low = _low_bytes(png).split()
        masks = [_differs(band, sample >> 8) for band, sample in zip(bands, key, strict=True)]
        masks += [_differs(band, sample & 0xFF) for band, sample in zip(low, key, strict=True)]
    else:
        masks = [_differs(band, (sample & most) * 255 // most) for band, sample in zip(bands, key, strict=True)]
    mask = masks[0]
    for one in masks[1:]:
        mask = ImageChops.lighter(mask, one)
    return mask


def _differs(band: Image.Image, value: int) -> Image.Image:
    return band.point([0 if one == value else 255 for one in range(256)])


def _low_bytes(png: PngFile) -> Image.Image:
    """Decode once more, for the halves of 16-bit samples that the decoder drops."""
    with Image.open(io.BytesIO(png.data), formats=["PNG"]) as opened:
        if isinstance(opened, PngImagePlugin.PngImageFile):
            opened.tile = [tile._replace(args="RGB;16L") for tile in opened.tile]
        opened.load()
        return opened.copy()


def without_gaps(shown: Image.Image, decoded: Image.Image, png: PngFile) -> Image.Image:
    """Make missing pixels of a truncated file transparent, or fill them from coarser passes.

    `decoded` is the decoded image, `shown` the same in the mode that is needed.
    """
    if png.is_whole and not _may_lack_rows(decoded):
        return shown
    if png.is_interlaced:
        return _from_whole_passes(shown, png)
    rows = _whole_rows(png, shown.size)
    if rows >= shown.height:
        return shown
    shown = shown.convert("RGBA")
    shown.paste((0, 0, 0, 0), (0, rows, shown.width, shown.height))
    return shown


def _may_lack_rows(picture: Image.Image) -> bool:
    """Say whether the last row is as empty as the memory that pixels are decoded into."""
    last = picture.crop((0, picture.height - 1, picture.width, picture.height))
    return not any(last.tobytes())


def _row_bytes(png: PngFile, width: int) -> int:
    return 1 + (width * _CHANNELS.get(png.colour_type, 1) * png.bit_depth + 7) // 8


def _whole_rows(png: PngFile, size: tuple[int, int]) -> int:
    row_bytes = _row_bytes(png, size[0])
    return _unpacked_bytes(png, row_bytes * size[1]) // row_bytes


def _unpacked_bytes(png: PngFile, enough: int) -> int:
    """Count how much of the picture can be unpacked, without keeping it."""
    unpacking, count, head = zlib.decompressobj(-zlib.MAX_WBITS), 0, _ZLIB_HEADER_BYTES
    try:
        for kind, content in png.moving:
            rest = content[head:] if kind == b"IDAT" else b""
            head -= min(head, len(content)) if kind == b"IDAT" else 0
            while rest and count < enough and not unpacking.eof:
                count += len(unpacking.decompress(rest, _PIECE_BYTES))
                rest = unpacking.unconsumed_tail
    except zlib.error:
        pass
    return min(count, enough)


def _from_whole_passes(picture: Image.Image, png: PngFile) -> Image.Image:
    """Repeat the pixels of the passes that are all there."""
    sizes = []
    for left, top, across, down in _PASSES:
        width, height = math.ceil((picture.width - left) / across), math.ceil((picture.height - top) / down)
        sizes.append(_row_bytes(png, width) * height if width > 0 and height > 0 else 0)
    count, passes = _unpacked_bytes(png, sum(sizes)), 0
    for size in sizes:
        if count < size:
            break
        count, passes = count - size, passes + 1
    if passes in {0, len(_PASSES)}:
        return picture
    across, down = _GRIDS[passes - 1]
    small = (math.ceil(picture.width / across), math.ceil(picture.height / down))
    corners = (across, 0, (1 - across) / 2, 0, down, (1 - down) / 2)
    coarse = picture.transform(small, Image.Transform.AFFINE, corners, Image.Resampling.NEAREST)
    whole = coarse.resize((small[0] * across, small[1] * down), Image.Resampling.NEAREST)
    return whole.crop((0, 0, *picture.size))
