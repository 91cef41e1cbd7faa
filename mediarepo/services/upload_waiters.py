"""Requests that wait for content: uploads that are pending, and media that another process fetches."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from mediarepo.model.concurrency import Waiters
from mediarepo.model.mxc import Mxc

_POLL_S = 5.0
"""After so long the database is read anyway: news can be lost, or not pass a connection pooler."""


class UploadWaiter:
    """A watch kept on one mxc; news that come between two waits are not lost."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def wake(self) -> None:
        """End the present wait, or the next one at once."""
        self._news.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for news, for the time given or until it is time to look anyway."""
        try:
            async with asyncio.timeout(min(timeout_s, _POLL_S)):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()


class UploadWaiters:
    """Wakes whoever watches an mxc; begin to watch first, then read the database, then wait."""

    def __init__(self, limit: int) -> None:
        self.waiters = Waiters("wait for media", limit=limit)
        self._watches: dict[str, set[UploadWaiter]] = {}

    @contextmanager
    def watching(self, mxc: Mxc) -> Iterator[UploadWaiter]:
        """Keep a watch; LimitExceededError when too many are kept already, in all or by the same client."""
        with self.waiters.enter():
            watch, name = UploadWaiter(), str(mxc)
            self._watches.setdefault(name, set()).add(watch)
            try:
                yield watch
            finally:
                self._watches[name].discard(watch)
                if not self._watches[name]:
                    del self._watches[name]

    def news(self, mxc: str) -> None:
        """Wake all who watch an mxc."""
        for watch in self._watches.get(mxc, ()):
            watch.wake()

    def reset(self) -> None:
        """Wake everybody: news may have been lost."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
