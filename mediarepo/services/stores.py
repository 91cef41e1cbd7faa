"""Stores by name and by class, and the ownership markers of buckets.

A prefix without a marker becomes ours only while the database knows of no objects there, or when most of the oldest
ones are found: else it is a wrong bucket, and nothing that is missing in it can be believed to be lost.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import structlog

from mediarepo.config.settings import StoreFor
from mediarepo.db.sweep import MissingObjects, SweepTable
from mediarepo.errors import MatrixError, UnavailableError
from mediarepo.model.drift import KnownObject
from mediarepo.model.ids import MARKER_NAME
from mediarepo.model.media import NewMedia, Ownership, StoreClass
from mediarepo.model.mxc import Mxc
from mediarepo.storage.errors import ObjectMissingError, StorageUnavailableError
from mediarepo.storage.store import Store

_MOST_NAME = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The configured stores, by name."""

    by_name: Mapping[str, Store]
    store_for: StoreFor
    closed: set[str] = field(default_factory=set)

    def store_for_class(self, store_class: StoreClass) -> Store:
        """Return the store that takes new objects of a class. Raises UnavailableError when its bucket is not ours."""
        name = self.store_for.store_of(store_class)
        if name in self.closed:
            raise UnavailableError(f"the store {name!r} is not this installation's", retry_after_s=60)
        return self.by_name[name]

    def close(self, names: set[str]) -> None:
        """Stop writing to these stores, and write to all others again."""
        self.closed.clear()
        self.closed.update(names)

    def named(self, name: str) -> Store:
        """Return the store that a row names. Raises UnavailableError when it is not configured, which is an outage."""
        try:
            return self.by_name[name]
        except KeyError:
            raise UnavailableError(f"the store {name!r} is not configured", retry_after_s=60) from None

    def metadata(self, mxc: Mxc, media: NewMedia | None = None, created_ts: int | None = None) -> dict[str, str]:
        """Return an object's metadata, so that a lost database can be rebuilt from the bucket.

        S3 keeps 2 KB of it: a name that is too long for that is left out.
        """
        said = {"mxc": str(mxc)}
        if media is None:
            return said
        said["content_type"] = media.content_type
        said["created_ts"] = str(media.created_ts or created_ts or 0)
        said["authenticated"] = str(media.authenticated).lower()
        if media.uploaded_by is not None:
            said["uploaded_by"] = media.uploaded_by
        if media.upload_name is not None and len(quote(media.upload_name)) <= _MOST_NAME:
            said["upload_name"] = media.upload_name
        return said


log = structlog.get_logger(__name__)

_CLAIM_TIMEOUT_S = 5
_MAX_MARKER_BYTES = 4096
_SAMPLE = 20

NOT_OURS = (
    "this bucket and prefix are another installation's, or not those that the database was used with; correct the "
    "configuration, or run `mediarepo claim STORE` if everything was moved here on purpose"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketMarkers:
    """Writes and checks the ownership marker of each store."""

    sweep_table: SweepTable
    missing_objects: MissingObjects
    claimed: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)

    async def claim_all(self, stores: Iterable[Store]) -> set[str]:
        """Claim the stores without a marker, and return those that are not ours.

        A store that cannot be reached keeps its last state, and is tried again next time.
        """
        for store in stores:
            if store.name in self.claimed:
                continue
            try:
                async with asyncio.timeout(_CLAIM_TIMEOUT_S):
                    ours = await self.claim(store)
            except (MatrixError, TimeoutError) as exc:
                log.warning("bucket_claim_failed", store=store.name, reason=str(exc))
                continue
            if ours:
                self.claimed.add(store.name)
                self.foreign.discard(store.name)
            else:
                self.foreign.add(store.name)
                log.error("bucket_not_owned", store=store.name, marker=marker_key(store), help=NOT_OURS)
        return set(self.foreign)

    async def is_ours(self, store: Store) -> bool:
        """Return whether the store's prefix has our marker; a read-only one has none, but must look right."""
        if store.read_only:
            return await self._looks_right(store, Ownership.BORROWED)
        if await self.other_prefix(store) is not None:
            return False
        return await self.owner(store) == str(await self.sweep_table.installation_id())

    async def owner(self, store: Store) -> str | None:
        """Return the installation id in a store's marker; None without one."""
        text = await _marker(store)
        return None if text is None else _owner(text)

    async def claim(self, store: Store) -> bool:
        """Write our marker where there is none.

        Returns False when the prefix belongs to another installation, or is the wrong one.
        """
        if store.read_only:
            return True
        other_prefix = await self.other_prefix(store)
        if other_prefix is not None:
            log.error("store_prefix_changed", store=store.name, prefix=store.prefix, objects_are_under=other_prefix)
            return False
        text = await _marker(store)
        if text is None:
            return await self._looks_right(store) and await self.mark(store)
        if _owner(text) == str(await self.sweep_table.installation_id()):
            return True
        await _check_length(store, len(text))
        return False

    async def other_prefix(self, store: Store) -> str | None:
        """Return the prefix under which the store's oldest objects lie; None when it is the configured one."""
        for oldest in await self.missing_objects.oldest(store.name, _SAMPLE):
            if not oldest.object_key.startswith(f"{store.prefix}/"):
                return oldest.object_key.rsplit("/", 3)[0]
        return None

    async def mark(self, store: Store) -> bool:
        """Write our marker over whatever is there; False when another process did at the same time."""
        text = f"{await self.sweep_table.installation_id()}\n".encode()
        await store.put(marker_key(store), [text], size_bytes=len(text), metadata={})
        return await self.is_ours(store)

    async def _looks_right(self, store: Store, ownership: Ownership = Ownership.OWNED) -> bool:
        """Say whether most of the oldest objects are there; a store that should hold none looks right."""
        oldest = await self.missing_objects.oldest(store.name, _SAMPLE, ownership)
        there = [one for one in oldest if await has_object(store, one)]
        return not oldest or 2 * len(there) > len(oldest)


async def _marker(store: Store) -> bytes | None:
    try:
        return await store.read(marker_key(store), max_bytes=_MAX_MARKER_BYTES)
    except ObjectMissingError:
        return None


def _owner(text: bytes) -> str:
    return text.decode("utf-8", "replace").strip()


async def _check_length(store: Store, length: int) -> None:
    """Believe in another's marker only when S3 gave all of it: what is cut off names nobody."""
    async for found in store.list(marker_key(store)):
        if found.key == marker_key(store) and found.size_bytes != length:
            raise StorageUnavailableError(f"S3 gave {found.key} in another length than it has")


async def has_object(store: Store, known: KnownObject) -> bool:
    """Return whether a store has an object of the right size."""
    async for found in store.list(known.object_key):
        if found.key == known.object_key:
            return found.size_bytes == known.size_bytes
    return False


def marker_key(store: Store) -> str:
    """Return the key of the ownership marker."""
    return f"{store.prefix}/{MARKER_NAME}"
