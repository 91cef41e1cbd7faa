"""A body cut into parts of equal size, hashed and counted on the way."""

import hashlib
import mmap

from mediarepo.config.media import UploadsConfig
from mediarepo.errors import BadRequestError, TooLargeError
from mediarepo.services.bodies import Body
from mediarepo.services.memory import Account

_MAPPED_BYTES = 256 * 1024
"""Larger buffers are mappings; for smaller ones the heap is quicker."""


class Part:
    """A part's bytes, gathered in one buffer.

    The buffer is a mapping of its own, given back to the system as soon as the part is let go: pieces kept as they came
    would leave the heap in tatters, three times as large as the budget (measured with a hundred uploads).
    """

    def __init__(self, reserved_bytes: int) -> None:
        self.reserved_bytes = reserved_bytes
        self.size_bytes = 0
        self._buffer = memoryview(
            mmap.mmap(-1, reserved_bytes) if reserved_bytes > _MAPPED_BYTES else bytearray(reserved_bytes)
        )

    def take(self, piece: bytes) -> None:
        """Append a piece; there must be room for it."""
        end = self.size_bytes + len(piece)
        self._buffer[self.size_bytes : end] = piece
        self.size_bytes = end

    @property
    def pieces(self) -> list[memoryview]:
        """The bytes, as storage takes them."""
        return [self._buffer[: self.size_bytes]] if self.size_bytes else []

    def let_go(self) -> None:
        """Drop the bytes; the memory is free once nobody sends from it any longer."""
        self._buffer = memoryview(b"")


class PartReader:
    """Reads one part after another; each part's memory is reserved before its first byte is read.

    `sha256` covers all bytes read so far. `part_bytes` is what a part holds; only the last one may be shorter.
    `declared_bytes` is the length that the body must have, `at_most_bytes` one that it must not exceed.
    `max_bytes` takes the place of the configured limit.
    """

    def __init__(
        self,
        config: UploadsConfig,
        body: Body,
        account: Account,
        *,
        declared_bytes: int | None,
        at_most_bytes: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.part_bytes = config.part_bytes
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.account = account
        self._max_bytes = config.max_bytes if max_bytes is None else max_bytes
        self._declared_bytes = declared_bytes
        self._at_most_bytes = at_most_bytes if declared_bytes is None else declared_bytes
        self._body = body
        self._rest = b""
        self._ended = False

    def next_part_bytes(self) -> int:
        """Say how much memory the next part needs at most."""
        if self._at_most_bytes is None:
            return self.part_bytes
        return min(self.part_bytes, max(self._at_most_bytes - self.size_bytes, 0))

    async def read_part(self) -> Part:
        """Read up to one part; an empty one is the end of the body."""
        wanted = self.next_part_bytes()
        await self.account.reserve(wanted)
        part = Part(wanted)
        while part.size_bytes < part.reserved_bytes and (piece := await self._read()):
            room = part.reserved_bytes - part.size_bytes
            taken, self._rest = (piece, b"") if len(piece) <= room else (piece[:room], piece[room:])
            part.take(taken)
            self.sha256.update(taken)
            self.size_bytes += len(taken)
        return part

    def release(self, part: Part) -> None:
        """Let go of a part that S3 has."""
        part.let_go()
        self.account.release(part.reserved_bytes)

    async def at_end(self) -> bool:
        """Say whether the body has no further byte; waits for it to show."""
        if not self._rest:
            self._rest = await self._read()
        return not self._rest

    async def _read(self) -> bytes:
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self._ended:
            return b""
        async with self.account.reading():
            piece = await self._body.read()
        self.account.received(len(piece))
        self._ended = not piece
        self._check(len(piece))
        return piece

    def _check(self, more_bytes: int) -> None:
        """Count what came, not what was declared."""
        if self.size_bytes + more_bytes > self._max_bytes:
            raise TooLargeError(f"the upload is larger than the limit of {self._max_bytes} bytes")
        if self._at_most_bytes is not None and self.size_bytes + more_bytes > self._at_most_bytes:
            raise BadRequestError("the body is longer than its declared length")
        if self._ended and self._declared_bytes not in {None, self.size_bytes}:
            raise BadRequestError("the body is shorter than its Content-Length")
