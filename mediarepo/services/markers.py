"""Whose is a prefix? An object in it carries the installation's id."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from mediarepo.db.sweeping import Sweeping
from mediarepo.errors import MatrixError
from mediarepo.storage.errors import ObjectMissingError, StorageError
from mediarepo.storage.store import Store

log = structlog.get_logger(__name__)

_CLAIM_TIMEOUT_S = 5
_MAX_MARKER_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Writes and checks the installation's marker in each store."""

    sweeping: Sweeping
    claimed: set[str] = field(default_factory=set)

    async def claim_all(self, stores: Iterable[Store]) -> None:
        """Claim the stores that were not claimed yet; what cannot be reached is left for the next time."""
        for store in stores:
            if store.name in self.claimed:
                continue
            try:
                async with asyncio.timeout(_CLAIM_TIMEOUT_S):
                    ours = await self.claim(store)
            except (MatrixError, StorageError, TimeoutError) as exc:
                log.warning("prefix_not_claimed", store=store.name, reason=str(exc))
                continue
            if ours:
                self.claimed.add(store.name)
            else:
                log.error("prefix_of_another_installation", store=store.name, marker=marker_key(store))

    async def is_ours(self, store: Store) -> bool:
        """Say whether the store's prefix carries our own marker."""
        return await self.owner(store) == str(await self.sweeping.installation_id())

    async def owner(self, store: Store) -> str | None:
        """Read the installation id that a store's prefix carries; None when it carries none."""
        try:
            text = await store.read(marker_key(store), max_bytes=_MAX_MARKER_BYTES)
        except ObjectMissingError:
            return None
        return text.decode("utf-8", "replace").strip()

    async def claim(self, store: Store) -> bool:
        """Put our marker where there is none; False when the prefix belongs to another installation."""
        owner = await self.owner(store)
        if owner is None:
            text = f"{await self.sweeping.installation_id()}\n".encode()
            await store.put(marker_key(store), [text], size_bytes=len(text), metadata={})
            return await self.is_ours(store)
        return owner == str(await self.sweeping.installation_id())


def marker_key(store: Store) -> str:
    """Name the object that says whose a prefix is."""
    return f"{store.prefix}/installation"
