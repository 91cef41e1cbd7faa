"""Bodies cut into parts that are hashed and counted, within one memory budget for all uploads.

An upload reserves a whole part before it reads the part's first byte, so one that began a part can always finish it.
It may hold one part while it waits for the next; what sends the first is watched meanwhile, so that its failure ends
the wait (`services/uploads`). Large bodies may use half of the budget, they and those of at most one part three
quarters, and the rest is for small ones, so that small uploads pass however many large ones crawl; it also makes up
for what waiting connections hold unread. While others wait, whoever sends too slowly is ended.
"""

import asyncio
import hashlib
import mmap
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from mediarepo.config.media import UploadsConfig
from mediarepo.errors import BadRequestError, LimitExceededError, TooLargeError, TooSlowError


class Body(Protocol):
    """The body of an upload."""

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end. Raises BadRequestError when the connection breaks."""
        ...


_SMALL_BYTES = 1024 * 1024
_SHARES = (1.0, 0.75, 0.5)
"""What bodies of a tier and all larger ones may use together: small (0), up to one part (1), large (2)."""


class MemoryAccount:
    """One upload's share of the budget, and the pace at which it receives."""

    def __init__(self, budget: "MemoryBudget", tier: int) -> None:
        self.held = 0
        self.tier = tier
        self._budget = budget
        self._pace_until = asyncio.get_running_loop().time() + budget.config.stall_ms / 1000
        self._idle_since = asyncio.get_running_loop().time()
        self._reading: asyncio.Timeout | None = None

    async def reserve(self, size_bytes: int) -> None:
        """Wait for memory of the budget. Raises LimitExceededError when too many wait already."""
        await self._budget.take(self, size_bytes)

    def release(self, size_bytes: int) -> None:
        """Return memory to the budget."""
        self._budget.give(self, size_bytes)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Measure the time that the client is waited for. Raises TooSlowError when it sends too little."""
        loop = asyncio.get_running_loop()
        config = self._budget.config
        self._pace_until += loop.time() - self._idle_since  # what we took ourselves is not the client's
        try:
            async with asyncio.timeout(config.idle_timeout_ms / 1000) as self._reading:
                yield
        except TimeoutError as exc:
            raise TooSlowError("the upload arrived too slowly") from exc
        finally:
            self._reading = None
            self._idle_since = loop.time()

    def received(self, size_bytes: int) -> None:
        """Credit bytes: they buy time at the slowest allowed pace, up to one stall period."""
        now = asyncio.get_running_loop().time()
        config = self._budget.config
        bought = size_bytes / config.min_bytes_per_s if config.min_bytes_per_s else config.stall_ms / 1000
        self._pace_until = min(max(self._pace_until, now) + bought, now + config.stall_ms / 1000)

    def is_slow(self, now: float) -> bool:
        """Return whether the client is being waited for and has used up its credit."""
        return self._reading is not None and now >= self._pace_until

    def end(self) -> None:
        """Make the upload fail with TooSlowError."""
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())
            self._reading = None

    @property
    def pace_until(self) -> float:
        """The event loop's time at which the upload becomes slow unless more arrives."""
        return self._pace_until


@dataclass(slots=True)
class _Waiter:
    account: MemoryAccount
    size_bytes: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MemoryBudget:
    """Memory budget of all uploads, first come first served."""

    def __init__(self, config: UploadsConfig) -> None:
        self.config = config
        self._limits = [config.memory_budget_bytes * share for share in _SHARES]
        self._used = [0 for _ in _SHARES]
        self._accounts: set[MemoryAccount] = set()
        self._waiters: deque[_Waiter] = deque()

    @property
    def used(self) -> int:
        """Reserved memory, in bytes."""
        return sum(self._used)

    @property
    def waiting(self) -> int:
        """How many uploads wait for memory."""
        return len(self._waiters)

    @asynccontextmanager
    async def account(self, declared_bytes: int | None) -> AsyncIterator[MemoryAccount]:
        """Open an upload's account; what it still holds at the end is returned."""
        account = MemoryAccount(self, self._tier(declared_bytes))
        self._accounts.add(account)
        try:
            yield account
        finally:
            self._accounts.discard(account)
            self.give(account, account.held)

    async def take(self, account: MemoryAccount, size_bytes: int) -> None:
        """Reserve memory for an account, waiting in line. Raises LimitExceededError when too many wait already."""
        if size_bytes == 0:
            return
        if not self._waiters and self._full_tier(account, size_bytes) is None:
            self._grant(account, size_bytes)
            return
        if len(self._waiters) >= self.config.max_waiting:
            raise LimitExceededError("too many uploads are waiting; try again later", retry_after_s=5)
        waiter = _Waiter(account, size_bytes)
        self._waiters.append(waiter)
        self._serve()
        try:
            await self._wait(waiter)
        except BaseException:
            self._withdraw(waiter)
            raise

    def give(self, account: MemoryAccount, size_bytes: int) -> None:
        """Return memory, and serve those who wait."""
        account.held -= size_bytes
        self._used[account.tier] -= size_bytes
        self._serve()

    async def _wait(self, waiter: _Waiter) -> None:
        loop, tick_s = asyncio.get_running_loop(), self.config.stall_ms / 1000 / 4
        while not waiter.granted.done():
            began = loop.time()
            await asyncio.wait([waiter.granted], timeout=tick_s)
            if loop.time() - began < 2 * tick_s:  # else we are slow ourselves, and bytes may wait unread
                self._end_slow_ones()

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter.granted.done():
            self.give(waiter.account, waiter.size_bytes)
        else:
            self._waiters.remove(waiter)
            self._serve()

    def _tier(self, declared_bytes: int | None) -> int:
        if declared_bytes is None or declared_bytes > self.config.part_bytes:
            return 2
        return 0 if declared_bytes <= _SMALL_BYTES else 1

    def _full_tier(self, account: MemoryAccount, size_bytes: int) -> int | None:
        """Find the highest tier whose share would be exceeded; None when the reservation fits."""
        for tier in range(account.tier, -1, -1):
            if sum(self._used[tier:]) + size_bytes > self._limits[tier]:
                return tier
        return None

    def _grant(self, account: MemoryAccount, size_bytes: int) -> None:
        account.held += size_bytes
        self._used[account.tier] += size_bytes

    def _serve(self) -> None:
        """Serve in order; whoever waits for a tier's share lets only smaller tiers pass."""
        barrier = len(_SHARES)
        for waiter in list(self._waiters):
            if waiter.account.tier >= barrier:
                continue
            full = self._full_tier(waiter.account, waiter.size_bytes)
            if full is not None:
                barrier = full
                continue
            self._waiters.remove(waiter)
            self._grant(waiter.account, waiter.size_bytes)
            waiter.granted.set_result(None)

    def _end_slow_ones(self) -> None:
        """End as many of the slowest uploads as it takes to serve those who wait."""
        now = asyncio.get_running_loop().time()
        wanted = sum(waiter.size_bytes for waiter in self._waiters)
        slow = [account for account in self._accounts if account.held and account.is_slow(now)]
        for account in sorted(slow, key=lambda one: one.pace_until):
            if wanted <= 0:
                return
            wanted -= account.held
            account.end()


_MAPPED_BYTES = 256 * 1024
"""Larger buffers are mappings; for smaller ones the heap is quicker."""


class UploadPart:
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
        """The bytes, as storage sends them."""
        return [self._buffer[: self.size_bytes]] if self.size_bytes else []

    def let_go(self) -> None:
        """Drop the bytes; the memory is free once nobody sends from it any longer."""
        self._buffer = memoryview(b"")


class PartReader:
    """Reads one part after another; each part's memory is reserved before its first byte is read.

    `sha256` covers all bytes read so far. `part_bytes` is what a part holds; only the last one may be shorter.
    `declared_bytes` is the length that the body must have, `at_most_bytes` one that it must not exceed.
    `max_bytes` takes the place of the configured limit. `pause` is called with the size of each piece that came, and
    may take its time: that is no slowness of the sender's.
    """

    def __init__(
        self,
        config: UploadsConfig,
        body: Body,
        account: MemoryAccount,
        *,
        declared_bytes: int | None,
        at_most_bytes: int | None = None,
        max_bytes: int | None = None,
        pause: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.part_bytes = config.part_bytes
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.account = account
        self._max_bytes = config.max_bytes if max_bytes is None else max_bytes
        self._declared_bytes = declared_bytes
        self._at_most_bytes = at_most_bytes if declared_bytes is None else declared_bytes
        self._body = body
        self._pause = pause
        self._rest = b""
        self._ended = False

    def next_part_bytes(self) -> int:
        """Return how much memory the next part needs at most."""
        if self._at_most_bytes is None:
            return self.part_bytes
        return min(self.part_bytes, max(self._at_most_bytes - self.size_bytes, 0))

    async def read_part(self) -> UploadPart:
        """Read up to one part; an empty one is the end of the body."""
        wanted = self.next_part_bytes()
        await self.account.reserve(wanted)
        part = UploadPart(wanted)
        while part.size_bytes < part.reserved_bytes and (piece := await self._read()):
            room = part.reserved_bytes - part.size_bytes
            taken, self._rest = (piece, b"") if len(piece) <= room else (piece[:room], piece[room:])
            part.take(taken)
            self.sha256.update(taken)
            self.size_bytes += len(taken)
        return part

    def release(self, part: UploadPart) -> None:
        """Free a part that S3 has."""
        part.let_go()
        self.account.release(part.reserved_bytes)

    async def at_end(self) -> bool:
        """Wait until the next byte or the end; returns whether it was the end."""
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
        if self._pause is not None:
            await self._pause(len(piece))
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
