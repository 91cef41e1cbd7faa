"""Which store takes what, and what its objects say of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from mediarepo.config.settings import StoreFor
from mediarepo.errors import UnavailableError
from mediarepo.model.media import NewMedia, StoreClass
from mediarepo.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The configured stores, by name."""

    by_name: Mapping[str, Store]
    store_for: StoreFor

    def taking(self, store_class: StoreClass) -> Store:
        """Pick the store that takes new objects of a class."""
        return self.by_name[self.store_for.store_of(store_class)]

    def named(self, name: str) -> Store:
        """Find the store that a row names; a store that is no longer configured is an outage, not a loss."""
        try:
            return self.by_name[name]
        except KeyError:
            raise UnavailableError(f"the store {name!r} is not configured", retry_after_s=60) from None

    def metadata(self, media: NewMedia) -> dict[str, str]:
        """Say who an object is, so that a lost database could be rebuilt from the bucket."""
        return {"mxc": str(media.mxc)}
