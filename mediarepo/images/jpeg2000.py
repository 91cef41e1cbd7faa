"""Reads the size of JPEG 2000 pictures (ISO/IEC 15444-1, SIZ), which their decoder takes memory for at once."""

import struct

_START = b"\xff\x4f\xff\x51"
_MAX_COMPONENTS = 4


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of the codestream; None without one, or with components beyond colours and alpha."""
    at = data.find(_START)
    if at < 0 or at + 42 > len(data):
        return None
    width, height, left, top = struct.unpack(">4I", data[at + 8 : at + 24])
    components = int.from_bytes(data[at + 40 : at + 42], "big")
    if width <= left or height <= top or not 1 <= components <= _MAX_COMPONENTS:
        return None
    return width - left, height - top
