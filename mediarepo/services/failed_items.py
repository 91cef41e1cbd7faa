"""What background work has set aside, for admins to read and to have tried again."""

from dataclasses import dataclass

from mediarepo.db.audit import AuditLog
from mediarepo.db.failed_items import FailedItems
from mediarepo.model.failed_items import FailedItem


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedItemReports:
    """Lists items that could not be processed, and has them retried."""

    failed: FailedItems
    audit: AuditLog

    async def read(self, *, queue: str | None, limit: int) -> list[FailedItem]:
        """Read items, of one queue or of all, those that failed last first."""
        return await self.failed.read(queue=queue, limit=limit)

    async def retry(self, by: str, *, queue: str | None, key: str | None) -> int:
        """Have items tried again at their queue's next turn; gives how many."""
        count = await self.failed.retry(queue=queue, key=key)
        await self.audit.add(by, None, "retry_failed_items", f"{queue or 'all'} {key or ''}".strip(), affected=count)
        return count
