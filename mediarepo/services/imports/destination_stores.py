"""Which of our stores hold a source's objects already, or can copy them."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mediarepo.config.settings import StoreFor
from mediarepo.config.storage import StoreConfig
from mediarepo.importers.reading.bucket import BucketAddress
from mediarepo.model.ids import MARKER_NAME, parse_key_ts
from mediarepo.model.import_ledger import ItemMode, ObjectMode
from mediarepo.model.media import StoreClass

_PORTS = {"http": 80, "https": 443}


def _server(endpoint_url: str) -> tuple[str, int | None]:
    parts = urlsplit(endpoint_url)
    return (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def _endpoint(address: BucketAddress) -> str:
    return address.endpoint_url or f"https://s3.{address.region or 'us-east-1'}.amazonaws.com"


@dataclass(frozen=True, slots=True)
class DestinationRoute:
    """How an object comes here; `store` is where it is adopted."""

    mode: ItemMode
    store: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStores:
    """Our stores, as an import sees them."""

    stores: Mapping[str, StoreConfig]
    store_for: StoreFor

    def holding(self, address: BucketAddress) -> str | None:
        """Name the store that is this very bucket; objects encrypted with a client's key could not be read there."""
        if address.customer_key is not None:
            return None
        for name, config in self.stores.items():
            if config.bucket == address.bucket and _server(config.endpoint_url) == _server(_endpoint(address)):
                return name
        return None

    def is_ours(self, address: BucketAddress, object_key: str) -> bool:
        """Say whether an object in a source's bucket is one that we made there, by its name."""
        return any(
            config.bucket == address.bucket
            and _server(config.endpoint_url) == _server(_endpoint(address))
            and object_key.startswith(f"{config.prefix}/")
            and (parse_key_ts(object_key) is not None or object_key == f"{config.prefix}/{MARKER_NAME}")
            for config in self.stores.values()
        )

    def is_near(self, address: BucketAddress, store_class: StoreClass) -> bool:
        """Say whether the store that takes a class is on the same server, which can copy by itself then."""
        config = self.stores[self.store_for.store_of(store_class)]
        return address.customer_key is None and _server(config.endpoint_url) == _server(_endpoint(address))

    def route(self, address: BucketAddress, mode: ObjectMode, store_class: StoreClass) -> DestinationRoute:
        """Choose how an object of a bucket is taken."""
        store = self.holding(address)
        if store is not None and mode in {ObjectMode.AUTO, ObjectMode.ADOPT}:
            return DestinationRoute(ItemMode.ADOPT, store)
        if mode in {ObjectMode.AUTO, ObjectMode.COPY} and self.is_near(address, store_class):
            return DestinationRoute(ItemMode.COPY)
        return DestinationRoute(ItemMode.STREAM)

    def problems(self, addresses: Mapping[str, BucketAddress], mode: ObjectMode) -> list[str]:
        """Say why objects cannot be taken as the operator wishes."""
        found = []
        for byte_source, address in addresses.items():
            where = f"{byte_source}: the bucket {address.bucket} at {_endpoint(address)}"
            if mode is ObjectMode.ADOPT and self.holding(address) is None:
                reason = "is encrypted with a key of its own" if address.customer_key else "is none of our stores"
                found.append(f"{where} {reason}, so its objects cannot be adopted: add it under stores, or choose copy")
            if mode is ObjectMode.COPY and not self.is_near(address, StoreClass.LOCAL):
                found.append(f"{where} is not at the server of our store, which therefore cannot copy: choose stream")
        return found

    def facts(self, addresses: Mapping[str, BucketAddress], mode: ObjectMode) -> list[str]:
        """Say how the objects of each bucket would be taken."""
        routes = {
            byte_source: self.route(address, mode, StoreClass.LOCAL) for byte_source, address in addresses.items()
        }
        return [
            f"{byte_source}: objects are taken by {route.mode}"
            + (f" in the store {route.store}" if route.store else "")
            for byte_source, route in routes.items()
        ]
