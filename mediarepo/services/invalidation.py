"""Waiting until no process serves rows that it had read before."""

import asyncio
from dataclasses import dataclass

import structlog

from mediarepo.db.cache_lease import LEASE_S, CacheLease, CacheLeaseTable, boot_s
from mediarepo.errors import UnavailableError

log = structlog.get_logger(__name__)

_FIRST_POLL_S = 0.002
_LONGEST_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    """Lets whoever has changed rows wait until the change holds in every process."""

    table: CacheLeaseTable
    lease: CacheLease

    async def settle(self) -> None:
        """Return when what was committed before holds everywhere: mostly at once, after `LEASE_S` at the latest.

        It raises nothing: where the database cannot be asked, that time is waited.
        """
        until = boot_s() + LEASE_S
        self.lease.drop()
        try:
            if not await self.table.count_others(self.lease.process):
                return
            number, pause_s = await self.table.invalidate(), _FIRST_POLL_S
            while boot_s() < until:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_POLL_S)
                if not await self.table.count_others(self.lease.process, number):
                    return
        except UnavailableError as exc:
            log.warning("invalidation_not_confirmed", reason=str(exc))
        await asyncio.sleep(max(0.0, until - boot_s()))
