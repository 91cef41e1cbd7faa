"""Which way up: the EXIF orientation of a picture (Exif 2.3, tag 0x0112)."""

from PIL import Image

_TAG = 0x0112
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
    """Read the orientation of an EXIF block, 1 to 8; whatever is broken, or no EXIF at all, counts as upright (1)."""
    if not isinstance(exif, bytes):
        return 1
    parsed = Image.Exif()
    try:
        parsed.load(exif)
        value = parsed.get(_TAG, 1)
    except Exception:  # noqa: BLE001 - EXIF is anybody's bytes, and a picture without it is still one
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSITIONS else 1


def lies_on_its_side(orientation: int) -> bool:
    """Say whether width and height change places when the picture is put upright."""
    return orientation >= _FIRST_ON_ITS_SIDE


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror a picture as its orientation says."""
    transposition = _TRANSPOSITIONS.get(orientation)
    return picture if transposition is None else picture.transpose(transposition)
