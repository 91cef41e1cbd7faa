"""Pictures on their way to a worker: in memory, in a file that has no name, within one budget."""

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mediarepo.config.thumbnails import ThumbnailsConfig
from mediarepo.errors import LimitExceededError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_RETRY_AFTER_S = 5


class Source:
    """A picture's bytes in a memfd, `fd`; a Sink until it is sealed."""

    def __init__(self, limit_bytes: int) -> None:
        self.fd = os.memfd_create("mediarepo-source", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    async def write(self, data: bytes) -> None:
        """Append bytes; more than were reserved are refused."""
        if self.size_bytes + len(data) > self._limit_bytes:
            raise ValueError("the picture is larger than its reservation")
        self.size_bytes += os.write(self.fd, data)

    def seal(self) -> None:
        """Make sure that nobody changes the bytes while they are decoded."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


class SourceBudget:
    """Hands out memory for sources in order of arrival."""

    def __init__(self, config: ThumbnailsConfig) -> None:
        self._free = config.memory_budget_bytes
        self._queue_limit = config.queue_limit
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncIterator[Source]:
        """Wait for room and give an empty source; LimitExceededError when too many wait already."""
        await self._take(size_bytes)
        try:
            source = Source(size_bytes)
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
            raise LimitExceededError(
                "too many thumbnails are being made; try again later", retry_after_s=_RETRY_AFTER_S
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (size_bytes, granted)
        self._waiters.append(waiter)
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                self._give(size_bytes)
            else:
                self._waiters.remove(waiter)
                self._serve()
            raise

    def _give(self, size_bytes: int) -> None:
        self._free += size_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._free:
            size_bytes, granted = self._waiters.popleft()
            self._free -= size_bytes
            granted.set_result(None)
