"""Whether the database and the stores respond."""

import asyncio
from dataclasses import dataclass

from mediarepo.db.database import Database, DatabaseUnavailableError, SchemaIncompatibleError
from mediarepo.db.failed_items import FailedItems
from mediarepo.errors import MatrixError
from mediarepo.services.recency import Recency
from mediarepo.services.stores import NOT_OURS, Stores
from mediarepo.storage.store import Store
from mediarepo.telemetry.logs import OutageLog

_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Checks the database and every store."""

    database: Database
    stores: Stores
    failed: FailedItems
    recency: Recency
    stopping: asyncio.Event
    outages: OutageLog

    async def details(self) -> dict[str, object]:
        """Return what needs the operator's attention while everything responds; empty when nothing does."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                set_aside = await self.failed.count()
                behind = await self.recency.problems()
        except (TimeoutError, DatabaseUnavailableError):
            return self._refused()
        told: dict[str, object] = {"set_aside": set_aside, "database_older_than": behind}
        return {name: value for name, value in told.items() if value} | self._refused()

    def _refused(self) -> dict[str, object]:
        """Tell of stores that take no new objects, though they give out those they have."""
        stores = self.stores.by_name.values()
        refused = {store.name: store.write_refusal for store in stores if store.write_refusal is not None}
        return {"refuses_uploads": refused} if refused else {}

    async def problems(self) -> dict[str, str]:
        """Return what does not respond, with the reason; empty when all does."""
        if self.stopping.is_set():
            return {"process": "stopping"}
        names = ["database", *(f"store {name}" for name in self.stores.by_name)]
        checks = [self.check_database(), *(self._store(store) for store in self.stores.by_name.values())]
        reasons = await asyncio.gather(*checks)
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}

    async def check_database(self) -> str | None:
        """Return why the database cannot be used, an incompatible schema included; None when it can."""
        reason, schema_fits = None, True
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self.database.check()
        except TimeoutError:
            reason = "no answer in time"
        except DatabaseUnavailableError as exc:
            schema_fits = not isinstance(exc, SchemaIncompatibleError)  # which is logged where it is found
            reason = f"{exc.message}: {exc.__cause__}" if exc.__cause__ is not None and schema_fits else exc.message
        self.outages.note("database", self.database.config.db_schema, reason if schema_fits else None)
        return reason

    async def check_stores(self) -> None:
        """Check whether the stores respond, for the log."""
        await asyncio.gather(*(self._store(store) for store in self.stores.by_name.values()))

    async def _store(self, store: Store) -> str | None:
        reason = await self._why_not(store)
        self.outages.note("store", store.name, reason)
        return reason

    async def _why_not(self, store: Store) -> str | None:
        if store.name in self.stores.closed:
            return NOT_OURS
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await store.check()
        except TimeoutError:
            return "no answer in time"
        except MatrixError as exc:
            return str(exc)
        return None
