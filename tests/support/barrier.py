"""A place where requests wait until a test lets them go."""

import asyncio

_TIMEOUT_S = 30


class Barrier:
    """Holds whoever waits at it, and tells how many do."""

    def __init__(self) -> None:
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()

    async def wait(self) -> None:
        async with self._changed:
            self._waiting += 1
            self._changed.notify_all()
        await self._open.wait()

    async def arrived(self, count: int = 1) -> None:
        """Wait until so many have come in all."""
        async with asyncio.timeout(_TIMEOUT_S), self._changed:
            await self._changed.wait_for(lambda: self._waiting >= count)

    def release(self) -> None:
        """Let all go, those still to come as well."""
        self._open.set()
