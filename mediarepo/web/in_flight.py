"""Counts requests in flight, so that a shutdown can wait for them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from mediarepo.model.concurrency import InUse


class InFlight:
    """Counts running requests; once `draining`, each connection is closed after its request.

    aiohttp's own shutdown stops reading at once, so that an upload in progress could never finish.
    """

    def __init__(self, cut_short: asyncio.Event, in_use: InUse) -> None:
        self._in_use = in_use
        self.draining = False
        self._cut_short = cut_short
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    @contextmanager
    def request(self, *, shown: bool) -> Iterator[None]:
        """Count a request until its response is sent; the metric shows those of clients only."""
        self._count += 1
        self._none_left.clear()
        try:
            with self._in_use.holding("requests", int(shown)):
                yield
        finally:
            self._count -= 1
            if not self._count:
                self._none_left.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until all running requests are done, the timeout has passed, or the wait is cut short."""
        self.draining = True
        waits = [asyncio.create_task(self._none_left.wait()), asyncio.create_task(self._cut_short.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
