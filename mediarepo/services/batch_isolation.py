"""Processes batches so that one failing item does not stop the others."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from mediarepo.db.database import LeaseLostError
from mediarepo.db.failed_items import FailedItems
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.marks import OPERATOR, AdminAction
from mediarepo.model.tasks import FailedItem, Queue
from mediarepo.services.stores import Stores

log = structlog.get_logger(__name__)

_GONE_MS = 7 * 24 * 3_600_000

Item = TypeVar("Item")


async def run_steps(*steps: Callable[[], Awaitable[object]]) -> None:
    """Run every step, whatever happens to those before; the first failure is raised at the end, others are logged.

    Nothing more runs once another process has taken over the lease.
    """
    failures: list[Exception] = []
    for step in steps:
        try:
            await step()
        except LeaseLostError:
            raise
        except Exception as exc:  # noqa: BLE001 - raised below, or logged
            failures.append(exc)
    for failure in failures[1:]:
        log.error("step_failed", reason=f"{type(failure).__name__}: {failure}", exc_info=failure)
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How many rows a batch has changed, and how many items were set aside."""

    done: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchIsolation:
    """Processes batches; when one fails, finds the failing items by halving, sets them aside and does the rest.

    An outage is no item's fault: it is raised, and nothing is set aside. After a connection error, the database is
    checked, and for items in a store that store.
    """

    failed: FailedItems
    stores: Stores
    on_failure: Callable[[str], None]

    async def run(
        self,
        queue: Queue,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], Awaitable[int]],
        *,
        key: Callable[[Item], str] = str,
        store: Callable[[Item], str] | None = None,
    ) -> BatchOutcome:
        """Process what is due; `work` takes some items, must be atomic, and returns how many it changed."""
        due = await self.failed.due(queue, [key(item) for item in items]) if items else set()
        waiting = [[item for item in items if key(item) in due]]
        done = failed = 0
        while waiting:
            batch = waiting.pop()
            if not batch:
                continue
            try:
                done += await work(batch)
            except LeaseLostError:
                raise
            except Exception as exc:  # halved until the failing item is alone, and set aside
                if await self._is_outage(exc, None if store is None else store(batch[0])):
                    raise
                if len(batch) > 1:
                    half = len(batch) // 2
                    waiting += [batch[half:], batch[:half]]
                    continue
                await self.set_aside(queue, key(batch[0]), exc)
                failed += 1
            else:
                await self.failed.forget(queue, [key(item) for item in batch])
        return BatchOutcome(done, failed)

    async def set_aside(self, queue: Queue, key: str, exc: Exception) -> None:
        """Record an item that could not be processed, and log it."""
        reason = f"{type(exc).__name__}: {exc}"
        await self.failed.note(queue, key, reason)
        self.on_failure(queue)
        log.error("item_set_aside", queue=queue, item=key, reason=reason)

    async def _is_outage(self, exc: Exception, store: str | None) -> bool:
        """Say whether something cannot be reached at all, rather than one item be processed."""
        if not isinstance(exc, UnavailableError):
            return False
        try:
            await self.failed.database.check()
            if store is not None and store in self.stores.by_name:
                await self.stores.by_name[store].check()
        except MatrixError:
            return True
        return False

    @asynccontextmanager
    async def drain_queue(self, queue: Queue) -> AsyncIterator[None]:
        """Process everything that is due in a queue; items that were due and not tried are removed from it."""
        began_ts = await self.failed.now_ms()
        yield
        await self.failed.forget_untried(queue, began_ts)

    async def forget_gone(self) -> None:
        """Remove items that no queue has any more."""
        await self.failed.forget_gone(_GONE_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedItemReports:
    """Lists failed items, and has them retried."""

    failed: FailedItems

    async def read(self, *, queue: str | None, limit: int) -> list[FailedItem]:
        """Return items of one queue or of all, most recent failure first."""
        return await self.failed.read(queue=queue, limit=limit)

    async def retry(self, by: str, *, queue: str | None, key: str | None, client_address: str | None = None) -> int:
        """Make items due now; returns how many."""
        act = AdminAction(by=by, owner=OPERATOR, action="retry_failed_items", client_address=client_address)
        return await self.failed.retry(queue=queue, key=key, act=act)
