"""Checks whether the database is as new as its buckets: one restored from a backup must not delete what it forgot."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from mediarepo.db.journal import JournalTable
from mediarepo.db.recency import RecencyTable
from mediarepo.db.sweep import SweepTable
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.ids import first_key_of, is_intended
from mediarepo.model.journal import PartKind, first_after, journal_folder, parse_part
from mediarepo.model.media import StoreClass
from mediarepo.services.stores import Stores
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_PAGE = 1000
_OVERLAP_MS = 300_000
"""How far back each look begins, as the clocks of processes are never in step."""
_GOOD_FOR_MS = 30_000
"""How long a look is believed by what deletes often."""


class BehindError(UnavailableError):
    """The database is older than a bucket; nothing is deleted."""


def explain(store: str, lost_key: str) -> str:
    """Return what is wrong and what to do, for the operator."""
    return (
        f"the database is older than the bucket of store {store}: it knows nothing of {lost_key}, which it was told of "
        "before the object was made. Was it restored from a backup? Nothing is deleted until it is up to date again: "
        "say `mediarepo rebuild --from-bucket STORE` with the store that takes uploads; or, if the objects are "
        f"nobody's, `mediarepo fsck --store {store} --repair --force`, which deletes them"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recency:
    """Looks for objects that the database should know, and records them for all processes."""

    table: RecencyTable
    journal: JournalTable
    sweep_table: SweepTable
    stores: Stores
    now_ms: Callable[[], int]
    on_behind: Callable[[str, bool], None]
    looked_ms: dict[str, int] = field(default_factory=dict)

    async def problems(self) -> dict[str, str]:
        """Return why each store is newer than the database, for the operator."""
        return {one.store: explain(one.store, one.lost_key or "") for one in await self.table.behind()}

    async def check(self) -> None:
        """Check all stores that can be reached. Raises BehindError when nothing may be deleted."""
        for problem in (await self.look_at_all()).values():
            raise BehindError(problem, retry_after_s=60)

    async def unseen(self) -> set[str]:
        """Return the stores that cannot be checked, where nothing may be deleted; checks those not checked lately."""
        unseen = set[str]()
        for store in self.stores.by_name.values():
            try:
                if self.now_ms() - self.looked_ms.get(store.name, -_GOOD_FOR_MS) >= _GOOD_FOR_MS:
                    await self.look(store)
            except MatrixError as exc:
                log.warning("recency_check_failed", store=store.name, reason=str(exc))
                unseen.add(store.name)
        return unseen

    async def look_at_all(self) -> dict[str, str]:
        """Check all stores; one that cannot be reached delays no other. Returns the problems by store."""
        for store in self.stores.by_name.values():
            try:
                await self.look(store)
            except MatrixError as exc:
                log.warning("recency_check_failed", store=store.name, reason=str(exc))
        return await self.problems()

    async def look(self, store: Store) -> str | None:
        """Check objects made since the last check; returns the key of one that the database should know."""
        if store.read_only:
            return None
        before, now_ms = await self.table.get(store.name), await self.table.now_ms()
        if before.lost_key is not None and await self.find_lost(store, [before.lost_key]):
            self.on_behind(store.name, True)  # noqa: FBT003 - a gauge's value
            return before.lost_key
        ahead = await self._journal_ahead(store)
        if ahead is not None:
            await self.note_lost(store, ahead, instead_of=before.lost_key)
            return ahead
        async for keys in self._recent(
            store, None if before.lost_key is not None else before.seen_until_ts, before.lost_key
        ):
            lost_key = await self.find_lost(store, keys)
            if lost_key is not None:
                await self.note_lost(store, lost_key, instead_of=before.lost_key)
                return lost_key
        await self.table.note_seen(store.name, now_ms, instead_of=before.lost_key)
        self.looked_ms[store.name] = self.now_ms()
        self.on_behind(store.name, False)  # noqa: FBT003 - as above
        return None

    async def note_lost(self, store: Store, lost_key: str, *, instead_of: str | None = None) -> None:
        """Record that the database is older than a bucket, and log it."""
        await self.table.note_lost(store.name, lost_key, instead_of=instead_of)
        self.on_behind(store.name, True)  # noqa: FBT003 - a gauge's value
        log.error(
            "database_is_older_than_bucket", store=store.name, object_key=lost_key, help=explain(store.name, lost_key)
        )

    async def give_up(self, store: Store) -> str | None:
        """Give up what only a newer database knew, as the operator says; the journal continues after its end."""
        installation_id, last = str(await self.sweep_table.installation_id()), 0
        async for found in store.list(journal_folder(store.prefix, installation_id)):
            part = parse_part(store.prefix, found.key)
            last = max(last, part.sequence) if part is not None else last
        await self.journal.continue_after(last)
        return await self.look(store)

    async def find_lost(self, store: Store, object_keys: Sequence[str]) -> str | None:
        """Return an existing object that the database should know and does not."""
        if any(parse_part(store.prefix, key) for key in object_keys):
            return await self._journal_ahead(store)
        intended = [key for key in object_keys if is_intended(key)]
        for key in await self.sweep_table.unknown(store.name, intended) if intended else []:
            if await store.size_of(key) is not None and await self.sweep_table.unknown(store.name, [key]):
                return key
        return None

    async def _journal_ahead(self, store: Store) -> str | None:
        """Find a part of our own journal with a number that this database has not given out yet.

        A number may be given out, and its part written, between two looks: the database is asked again.
        """
        installation_id = str(await self.sweep_table.installation_id())
        sequence = await self.journal.sequence()
        for kind in PartKind:
            after = first_after(store.prefix, installation_id, kind, sequence)
            async for found in store.list(f"{journal_folder(store.prefix, installation_id)}{kind}/", start_after=after):
                part = parse_part(store.prefix, found.key)
                if part is None or part.sequence <= sequence:
                    continue
                sequence = await self.journal.sequence()
                if part.sequence > sequence:
                    return found.key
        return None

    async def _recent(self, store: Store, since_ms: int | None, lost_key: str | None) -> AsyncIterator[list[str]]:
        """List the keys made since a time, in pages; all when something was lost before."""
        for store_class in StoreClass:
            under = f"{store.prefix}/{store_class}/"
            after: str | None = None
            if since_ms is not None:
                after = first_key_of(store.prefix, store_class, max(since_ms - _OVERLAP_MS, 0))
            elif lost_key is None:
                after = await self.table.newest_key(store.name, under)
            page: list[str] = []
            async for found in store.list(under, start_after=after):
                page.append(found.key)
                if len(page) == _PAGE:
                    yield page
                    page = []
            if page:
                yield page
