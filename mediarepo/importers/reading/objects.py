"""Buckets of a source: what is asked of them, and shelves made of them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from mediarepo.importers.errors import BytesVanishedError, ListingRefusedError, SourceError
from mediarepo.importers.reading.shelves import Listed, Trouble, path_order
from mediarepo.model.imports import ObjectBytes, ResolutionState, SourceBytes

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAddress:
    """How to reach a bucket; without `endpoint_url` it is Amazon's, without keys they come from the environment.

    `customer_key` is what objects are encrypted with (SSE-C), which the server has to be told with every GET.
    """

    bucket: str
    region: str | None = None
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    customer_key: str | None = field(default=None, repr=False)
    customer_algorithm: str = "AES256"
    path_style: bool = True


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An object as a LIST shows it; `etag` without quotes, `modified_ts` in ms."""

    key: str
    size_bytes: int
    etag: str | None
    modified_ts: int = 0
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The objects behind a key, up to `end`, or all that there are."""

    start_after: str
    objects: dict[str, StoredKey]
    end: str | None

    def covers(self, key: str) -> bool:
        """Say whether an object of this key would be among them."""
        wanted, start = path_order(key), path_order(self.start_after)
        return start < wanted and (self.end is None or wanted <= path_order(self.end))


class ObjectLister(Protocol):
    """A bucket that is only read. Methods raise SourceUnavailableError during outages, else SourceError."""

    address: BucketAddress
    words: str
    lists: int

    def list(self, prefix: str, start_after: str | None = None) -> AsyncGenerator[StoredKey, None]:
        """Walk through the objects whose keys begin with `prefix`, in the order of keys, behind `start_after`."""
        ...

    async def page(self, prefix: str, start_after: str) -> Page:
        """List up to a thousand objects; ListingRefusedError where that is not allowed."""
        ...

    async def find(self, key: str) -> StoredKey | None:
        """Look for one object; None only when the bucket answers that there is none."""
        ...

    def get(self, key: str, *, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Read an object in small pieces; raises BytesVanishedError when it is gone, or another one by its ETag."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class BucketShelf:
    """Objects whose keys begin with `prefix`, to which paths are appended as they are, without a slash between."""

    def __init__(self, name: str, objects: ObjectLister, *, prefix: str) -> None:
        self.name = name
        self.words = f"{objects.words} under {prefix!r}"
        self.notes: list[str] = []
        self.has_costly_looks = True
        self.address = objects.address
        self._objects = objects
        self._prefix = prefix
        self._page: Page | None = None

    async def close(self) -> None:
        """Let go of connections."""
        await self._objects.close()

    @property
    def lists(self) -> int:
        """How many LIST requests were made."""
        return self._objects.lists

    async def check(self) -> str | None:
        """Say why the bucket cannot be read."""
        try:
            await self._objects.find(f"{self._prefix}local_content/")
        except SourceError as exc:
            return f"{self.words} cannot be read: {exc}"
        return None

    async def find(self, path: str) -> SourceBytes | Trouble | None:
        """Look for an object."""
        try:
            stored = await self._objects.find(self._prefix + path)
        except SourceError as exc:
            return Trouble(ResolutionState.UNREADABLE, f"{self.words}: {exc}")
        return None if stored is None else _trouble(stored) or self._found(stored)

    async def find_near(self, path: str) -> SourceBytes | Trouble | None:
        """Look for an object in the page of the listing that was looked at last, or in the one that begins with it."""
        key = self._prefix + path
        try:
            if self._page is None or not self._page.covers(key):
                self._page = await self._objects.page(self._prefix, key[:-1])
            page = self._page
        except ListingRefusedError:
            return await self.find(path)
        except SourceError as exc:
            return Trouble(ResolutionState.UNREADABLE, f"{self.words}: {exc}")
        if not page.covers(key):
            return await self.find(path)
        stored = page.objects.get(key)
        return None if stored is None else _trouble(stored) or self._found(stored)

    async def walk(self, under: str) -> AsyncGenerator[Listed, None]:
        """Walk through objects, a thousand with one request; where that is refused, all are left to `find`."""
        try:
            async for stored in self._objects.list(self._prefix + under):
                path = stored.key.removeprefix(self._prefix)
                yield Listed(path, self._found(stored), stored.modified_ts, _trouble(stored))
        except ListingRefusedError as exc:
            self.has_costly_looks = False
            self.notes.append(f"{exc}: objects are asked for one by one, and orphans go unnoticed")

    def _found(self, stored: StoredKey) -> ObjectBytes:
        return ObjectBytes(self.name, self.address.bucket, stored.key, stored.size_bytes, stored.etag)

    async def read(self, found: SourceBytes) -> bytes:
        """Read an object at once."""
        return b"".join([piece async for piece in self.open(found)])

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Read an object, if it is still what was found."""
        if not isinstance(found, ObjectBytes):
            raise SourceError(f"{found} is no object")
        read = 0
        async for piece in self._objects.get(found.object_key, etag=found.etag):
            read += len(piece)
            yield piece
        if read != found.size_bytes:
            raise BytesVanishedError(f"{found.object_key} had {found.size_bytes} bytes, and {read} could be read")


def _trouble(stored: StoredKey) -> Trouble | None:
    if stored.storage_class not in _ARCHIVED:
        return None
    words = f"{stored.key} was archived ({stored.storage_class}) and must be restored first"
    return Trouble(ResolutionState.UNREADABLE, words)
