"""Who takes up how much, answered from counters."""

from dataclasses import dataclass

from mediarepo.db.usage import UsageTable
from mediarepo.model.retention import RetentionClass
from mediarepo.model.usage import ObjectUsage, Usage, UsageBy, UsageClass, UsageFilter

_THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReports:
    """Reads the counters."""

    table: UsageTable

    async def of_media(self, by: list[UsageBy], only: UsageFilter, limit: int) -> list[Usage]:
        """Add up media, split as asked for, the largest first."""
        return await self.table.of_media(by, only, limit)

    async def of_objects(self) -> list[ObjectUsage]:
        """Add up what each store holds."""
        return await self.table.of_objects()

    async def of_user(self, user_id: str) -> Usage:
        """Add up a user's uploads."""
        found = await self.table.of_media([], UsageFilter(UsageClass.LOCAL, None, user_id), 1)
        return found[0] if found else Usage({}, 0, 0)

    async def of_class(self, retention_class: RetentionClass) -> int:
        """Add up the bytes that a retention policy's budget is about."""
        if retention_class is RetentionClass.THUMBNAILS:
            return sum(one.size_bytes for one in await self.of_objects() if one.object_class == _THUMBNAILS)
        found = await self.table.of_media([], UsageFilter(UsageClass(retention_class.value)), 1)
        return found[0].size_bytes if found else 0
