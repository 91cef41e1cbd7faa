"""Reads the size of JPEG XL pictures (ISO/IEC 18181-1, SizeHeader; 18181-2, boxes)."""

from collections.abc import Iterator

FILE_START = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
CODESTREAM_START = b"\xff\x0a"
_MAX_BOXES = 1_000
_HEADER_BYTES = 32
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIZE_BITS = (9, 13, 18, 30)


class _Bits:
    """The bits of a header, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "little")

    def read(self, count: int) -> int:
        value = self._number & ((1 << count) - 1)
        self._number >>= count
        return value

    def side(self, *, small: bool) -> int:
        """Read a width or height: eighths where all are small, else a number of one of four lengths."""
        if small:
            return (self.read(5) + 1) * 8
        return self.read(_SIZE_BITS[self.read(2)]) + 1


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height as they are stored; None without a codestream."""
    stream = data if data.startswith(CODESTREAM_START) else next(_streams(data), b"")
    if not stream.startswith(CODESTREAM_START) or len(stream) < 4:
        return None
    bits = _Bits(stream[2:_HEADER_BYTES])
    small = bool(bits.read(1))
    height = bits.side(small=small)
    ratio = bits.read(3)
    if not ratio:
        return bits.side(small=small), height
    across, down = _RATIOS[ratio]
    return height * across // down, height


def _streams(data: bytes) -> Iterator[bytes]:
    """Find the beginnings of the codestream's boxes."""
    at = len(FILE_START) if data.startswith(FILE_START) else len(data)
    for _ in range(_MAX_BOXES):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in {b"jxlc", b"jxlp"}:
            start = at + head + (4 if kind == b"jxlp" else 0)
            yield data[start : start + _HEADER_BYTES]
        if size < head or at + size >= len(data):
            return
        at += size
