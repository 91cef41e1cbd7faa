"""Regular work that all processes over one database do once, together."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mediarepo.db.tasks import JobRuns
from mediarepo.model.tasks import JobRun
from mediarepo.services.holding import Holding

Figures = dict[str, Any]

_SLACK = 0.5
"""A run counts as this interval's when it began within so much of it; clocks of processes are never in step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Runs a job when it is due and nobody else is at it; one whose process dies is taken over when its lease ends."""

    holding: Holding
    runs: JobRuns

    async def once(self, name: str, interval_ms: int, work: Callable[[], Awaitable[Figures | None]]) -> bool:
        """Do work unless it was done within the interval, or is being done; says whether it was done here."""
        async with self.holding.trying(f"job {name}") as lease:
            if lease is None or not await self.runs.begin(name, int(interval_ms * _SLACK)):
                return False
            try:
                result = await work()
            except Exception as exc:
                await self.runs.finish(name, error=str(exc) or type(exc).__name__, result=None)
                raise
            await self.runs.finish(name, error=None, result=result)
            return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReports:
    """Tells when regular work was last done."""

    runs: JobRuns

    async def read(self) -> list[JobRun]:
        """Read all of it."""
        return await self.runs.read()
