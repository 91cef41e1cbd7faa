"""What background work has set aside, for admins to read and to have tried again."""

from dataclasses import dataclass

from mediarepo.db.failed_items import FailedItems
from mediarepo.model.failed_items import FailedItem
from mediarepo.model.marks import OPERATOR, AdminAction


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedItemReports:
    """Lists items that could not be processed, and has them retried."""

    failed: FailedItems

    async def read(self, *, queue: str | None, limit: int) -> list[FailedItem]:
        """Read items, of one queue or of all, those that failed last first."""
        return await self.failed.read(queue=queue, limit=limit)

    async def retry(self, by: str, *, queue: str | None, key: str | None, client_address: str | None = None) -> int:
        """Have items tried again at their queue's next turn; gives how many."""
        act = AdminAction(by=by, owner=OPERATOR, action="retry_failed_items", client_address=client_address)
        return await self.failed.retry(queue=queue, key=key, act=act)
