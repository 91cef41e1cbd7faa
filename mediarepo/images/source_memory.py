"""Source images in sealed memory files, within one memory budget."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mediarepo.config.media import ThumbnailsConfig
from mediarepo.images.errors import too_busy
from mediarepo.sandbox.confinement import create_memfd, seal

_Waiter = tuple[int, asyncio.Future[None]]


class SourceBuffer:
    """A picture's bytes in a memfd, `fd`; a Sink until it is sealed."""

    def __init__(self, limit_bytes: int) -> None:
        self.fd = create_memfd("mediarepo-source")
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    async def write(self, data: bytes) -> None:
        """Append bytes; more than were reserved are refused."""
        if self.size_bytes + len(data) > self._limit_bytes:
            raise ValueError("the picture is larger than its reservation")
        self.size_bytes += os.write(self.fd, data)

    def seal(self) -> None:
        """Make sure that nobody changes the bytes while they are decoded."""
        seal(self.fd)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


class SourceBudget:
    """Hands out memory for sources in order of arrival."""

    def __init__(self, config: ThumbnailsConfig) -> None:
        self._limit = self._free = config.memory_budget_bytes
        self._queue_limit = config.queue_limit
        self._queue_timeout_s = config.queue_timeout_ms / 1000
        self._waiters: deque[_Waiter] = deque()

    @property
    def in_use(self) -> int:
        """How much is reserved, in bytes."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiters)

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[SourceBuffer]:
        """Wait for room and give an empty source; LimitExceededError when too many wait already, or for too long."""
        await self._take(size_bytes)
        try:
            source = SourceBuffer(size_bytes)
            try:
                yield source
            finally:
                source.close()
        finally:
            self._give(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiters and size_bytes <= self._free:
            self._free -= size_bytes
            return
        if len(self._waiters) >= self._queue_limit:
            raise too_busy()
        waiter = (size_bytes, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await waiter[1]
        except TimeoutError as exc:
            self._withdraw(waiter)
            raise too_busy() from exc
        except BaseException:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: _Waiter) -> None:
        size_bytes, granted = waiter
        if granted.done() and not granted.cancelled():
            self._give(size_bytes)
            return
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        self._serve()

    def _give(self, size_bytes: int) -> None:
        self._free += size_bytes
        self._serve()

    def _serve(self) -> None:
        """Serve in order; who was cancelled and has not noticed yet is passed over."""
        while self._waiters and (self._waiters[0][0] <= self._free or self._waiters[0][1].done()):
            size_bytes, granted = self._waiters.popleft()
            if not granted.done():
                self._free -= size_bytes
                granted.set_result(None)
