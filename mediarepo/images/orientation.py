"""Which way up: the EXIF orientation of a picture (Exif 2.3, tag 0x0112)."""

from PIL import Image

_TAG, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5


def orientation_of(exif: object) -> int:
    """Read the orientation of an EXIF block, 1 to 8; whatever is broken, or no EXIF at all, counts as upright (1).

    Only one SHORT in the first directory counts, as in browsers.
    """
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(b"Exif\x00\x00")
    orders = {b"II*\x00": "little", b"MM\x00*": "big"}
    order = orders.get(block[:4])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], "little" if order == "little" else "big")

    start = number(4, 4)
    for at in range(start + 2, start + 2 + number(start, 2) * _ENTRY_BYTES, _ENTRY_BYTES):
        if at + _ENTRY_BYTES > len(block):
            return 1
        if number(at, 2) == _TAG:
            value = number(at + 8, 2)
            one_short = (number(at + 2, 2), number(at + 4, 4)) == (_SHORT, 1)
            return value if one_short and value in _TRANSPOSITIONS else 1
    return 1


def lies_on_its_side(orientation: int) -> bool:
    """Say whether width and height change places when the picture is put upright."""
    return orientation >= _FIRST_ON_ITS_SIDE


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror a picture as its orientation says."""
    transposition = _TRANSPOSITIONS.get(orientation)
    return picture if transposition is None else picture.transpose(transposition)
