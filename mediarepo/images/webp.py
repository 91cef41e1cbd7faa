"""What a WebP's header says (RFC 9649), before a decoder takes memory for it."""

_LOSSY_START = b"\x9d\x01\x2a"
_SIDE_BITS = 0x3FFF


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Read the width and height of the canvas; None where there is no header of a picture."""
    kind, content = data[12:16], data[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
    if kind == b"VP8L" and content[:1] == b"\x2f":
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits & _SIDE_BITS), 1 + (bits >> 14 & _SIDE_BITS)
    if kind == b"VP8 " and content[3:6] == _LOSSY_START:
        width, height = int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
        return width & _SIDE_BITS, height & _SIDE_BITS
    return None
