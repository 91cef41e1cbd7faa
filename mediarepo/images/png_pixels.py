"""What a PNG's decoder leaves undone: transparent colours of any depth, and what a file that is cut does not show."""

import io
import math
import zlib

from PIL import Image, ImageChops, PngImagePlugin

from mediarepo.images.png import PngFile

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: left, top, and the distances of pixels; each fills the gaps of those before it."""
_GRIDS = ((8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2), (1, 1))
"""How far apart pixels are, across and down, after each of the passes."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PIECE_BYTES = 4096
_ZLIB_HEADER_BYTES = 2
_SIXTEEN = 16


def opacity(picture: Image.Image, png: PngFile) -> Image.Image | None:
    """Make the mask of what the file's transparent colour leaves visible; None without such a colour."""
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
    """Leave transparent, or fill from coarser passes, what a file that is cut or broken does not hold.

    `decoded` is the picture as it was decoded, `shown` in the mode in which it is needed.
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
