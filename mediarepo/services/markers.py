"""Whose is a prefix? An object in it carries the installation's id."""

from dataclasses import dataclass

from mediarepo.db.sweeping import Sweeping
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.store import Store

_MAX_MARKER_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Writes and checks the installation's marker in each store."""

    sweeping: Sweeping

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
