"""Who takes up how much, answered from counters."""

from dataclasses import dataclass
from functools import partial

from mediarepo.db.usage import Counter, UsageTable
from mediarepo.model.failed_items import Queue
from mediarepo.model.retention import RetentionClass
from mediarepo.model.usage import ObjectUsage, Usage, UsageBy, UsageClass, UsageFilter
from mediarepo.services.batch_isolation import BatchIsolation

_BATCH = 5_000
_COUNTERS: tuple[Counter, ...] = ("media", "object")
_THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReports:
    """Reads the counters."""

    table: UsageTable
    isolation: BatchIsolation

    async def fold(self) -> int:
        """Fold what has changed into the counters; gives how many changes they were."""
        total = 0
        async with self.isolation.whole_queue(Queue.USAGE):
            for counter in _COUNTERS:
                total += await self._fold(counter)
        await self.table.forget_empty()
        return total

    async def _fold(self, counter: Counter) -> int:
        total = 0
        while delta_ids := await self.table.deltas(counter, _BATCH):
            outcome = await self.isolation.run(
                Queue.USAGE, delta_ids, partial(self.table.fold, counter), key=lambda one: f"{counter} {one}"
            )
            total += outcome.done
            if not outcome.done and not outcome.failed:
                break  # others are at them
        return total

    async def of_media(self, by: list[UsageBy], only: UsageFilter, limit: int) -> list[Usage]:
        """Add up media, split as asked for, the largest first."""
        return await self.table.of_media(by, only, limit)

    async def of_objects(self) -> list[ObjectUsage]:
        """Add up what each store holds."""
        return await self.table.of_objects()

    async def of_user(self, user_id: str) -> Usage:
        """Add up a user's uploads."""
        found = await self.table.of_media([], UsageFilter(UsageClass.LOCAL, user_id.partition(":")[2], user_id), 1)
        return found[0] if found else Usage({}, 0, 0)

    async def of_class(self, retention_class: RetentionClass) -> int:
        """Add up the bytes that a retention policy's budget is about."""
        if retention_class is RetentionClass.THUMBNAILS:
            return sum(one.size_bytes for one in await self.of_objects() if one.object_class == _THUMBNAILS)
        found = await self.table.of_media([], UsageFilter(UsageClass(retention_class.value)), 1)
        return found[0].size_bytes if found else 0
