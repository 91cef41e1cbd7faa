"""Which store takes what, and what its objects say of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mediarepo.config.settings import StoreFor
from mediarepo.errors import UnavailableError
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The configured stores, by name."""

    by_name: Mapping[str, Store]
    store_for: StoreFor
    closed: set[str] = field(default_factory=set)

    def taking(self, store_class: StoreClass) -> Store:
        """Pick the store that takes new objects of a class; one that is not ours is an outage."""
        name = self.store_for.store_of(store_class)
        if name in self.closed:
            raise UnavailableError(f"the store {name!r} is not the one that it was", retry_after_s=60)
        return self.by_name[name]

    def close(self, names: set[str]) -> None:
        """Take nothing more into these stores, and again into all others."""
        self.closed.clear()
        self.closed.update(names)

    def named(self, name: str) -> Store:
        """Find the store that a row names; a store that is no longer configured is an outage, not a loss."""
        try:
            return self.by_name[name]
        except KeyError:
            raise UnavailableError(f"the store {name!r} is not configured", retry_after_s=60) from None

    def metadata(self, mxc: Mxc) -> dict[str, str]:
        """Say who an object is, so that a lost database could be rebuilt from the bucket."""
        return {"mxc": str(mxc)}
