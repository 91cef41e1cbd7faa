"""When media was last asked for, gathered in memory and written in batches."""

from collections.abc import Callable

from mediarepo.config.sweeps import AccessConfig
from mediarepo.db.access import AccessTable
from mediarepo.model.mxc import Mxc


class AccessTimes:
    """Remembers last accesses until the next flush; a crash loses one interval's worth, which retention can bear."""

    def __init__(self, config: AccessConfig, table: AccessTable, now_ms: Callable[[], int]) -> None:
        self._config = config
        self._table = table
        self._now_ms = now_ms
        self._seen: dict[Mxc, int] = {}

    def note(self, mxc: Mxc) -> None:
        """Remember that media was asked for; beyond the bound, further media wait for the next interval."""
        if len(self._seen) < self._config.max_buffered or mxc in self._seen:
            self._seen[mxc] = self._now_ms()

    async def flush(self) -> int:
        """Write what was gathered and return how many; what cannot be written is kept for the next time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return 0
        try:
            await self._table.store(seen)
        except BaseException:
            self._seen = seen | self._seen
            raise
        return len(seen)
