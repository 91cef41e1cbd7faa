"""How many fetches run at a time, in all and from each server."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Lets so many in at a time; a slow server holds up only those who ask for its own media."""

    def __init__(self, *, limit: int, limit_per_server: int) -> None:
        self._all = asyncio.Semaphore(limit)
        self._limit_per_server = limit_per_server
        self._servers: dict[str, asyncio.Semaphore] = {}
        self._users: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def of(self, server_name: str) -> AsyncIterator[None]:
        """Wait for one of the server's places, then for one of all."""
        server = self._servers.setdefault(server_name, asyncio.Semaphore(self._limit_per_server))
        self._users[server_name] += 1
        try:
            async with server, self._all:
                yield
        finally:
            self._users[server_name] -= 1
            if not self._users[server_name]:
                del self._users[server_name], self._servers[server_name]
