"""Holding a lease for as long as the work takes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from mediarepo.db.leases import Leases
from mediarepo.errors import MatrixError
from mediarepo.model.tasks import Lease

log = structlog.get_logger(__name__)

_BEATS = 3
_RELEASE_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Takes leases and renews them until the work is done; a process that dies lets go after `duration_ms`."""

    leases: Leases
    duration_ms: int

    @contextlib.asynccontextmanager
    async def trying(self, name: str) -> AsyncIterator[Lease | None]:
        """Hold a lease, or None while somebody else does; what ends the lease on success is the work's own commit."""
        lease = await self.leases.acquire(name, self.duration_ms)
        if lease is None:
            yield None
            return
        beating = asyncio.create_task(self._beat(lease), name=f"lease {name}")
        try:
            yield lease
        finally:
            beating.cancel()
            await asyncio.shield(self._let_go(lease, beating))

    async def _beat(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self.duration_ms / 1000 / _BEATS)
            try:
                if not await self.leases.renew(lease, self.duration_ms):
                    return
            except MatrixError as exc:
                log.warning("lease_not_renewed", lease=lease.name, reason=exc.message)

    async def _let_go(self, lease: Lease, beating: asyncio.Task[None]) -> None:
        await asyncio.wait([beating])
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await self.leases.release(lease)
        except (MatrixError, TimeoutError) as exc:
            log.warning("lease_left_to_run_out", lease=lease.name, reason=str(exc))
