"""Last-access times: remembered by each process, and written in batches, so that a read writes nothing."""

from collections.abc import Callable, Sequence

from mediarepo.config.cleanup import LastAccessConfig
from mediarepo.db.media import AccessTable
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Queue
from mediarepo.services.batch_isolation import BatchIsolation


class AccessTimes:
    """Remembers last accesses until the next flush; a crash loses one interval's worth, which retention can bear."""

    def __init__(
        self, config: LastAccessConfig, table: AccessTable, isolation: BatchIsolation, now_ms: Callable[[], int]
    ) -> None:
        self._config = config
        self._table = table
        self._isolation = isolation
        self._now_ms = now_ms
        self._seen: dict[Mxc, int] = {}

    def note(self, mxc: Mxc) -> None:
        """Remember that media was asked for; beyond the bound, further media wait for the next interval."""
        if len(self._seen) < self._config.max_buffered or mxc in self._seen:
            self._seen[mxc] = self._now_ms()

    async def flush(self) -> int:
        """Write what was gathered and return how many; in an outage it is kept for the next time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return 0

        async def store(mxcs: Sequence[Mxc]) -> int:
            await self._table.store({mxc: seen[mxc] for mxc in mxcs})
            return len(mxcs)

        try:
            await self._isolation.run(Queue.ACCESS_TIMES, list(seen), store)
        except BaseException:
            self._seen = seen | self._seen
            raise
        return len(seen)
