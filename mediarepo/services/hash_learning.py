"""Computes unknown or unverified hashes when a quarantine depends on them."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.errors import UnavailableError
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.failed_items import Queue
from mediarepo.model.media import Blob
from mediarepo.model.mxc import Mxc
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import ObjectMissingError

_PATIENCE_S = 30
_BATCH = 100


class HashingSink:
    """Takes bytes, and keeps only their hash."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        """Take some."""
        self.sha256.update(data)


class HashLearner:
    """Reads content from S3 and keeps its hash; any number of requests for one blob read it once."""

    def __init__(self, *, table: UnverifiedHashTable, stores: Stores, isolation: BatchIsolation) -> None:
        self._table = table
        self._stores = stores
        self._isolation = isolation
        self.flights = SingleFlight[None]()

    async def __aenter__(self) -> Self:
        await self.flights.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.flights.__aexit__(*exc_info)

    async def learn(self, blob: Blob) -> None:
        """Learn a blob's hash; UnavailableError when that takes too long, though it goes on."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.flights.run(blob.blob_id, partial(self._read, blob))
        except TimeoutError as exc:
            raise UnavailableError("the content is being looked at; try again", retry_after_s=_PATIENCE_S) from exc

    async def learn_of(self, mxcs: Sequence[Mxc]) -> None:
        """Learn the hashes of media that are about to be hidden, so that equal content is hidden with them.

        Content that cannot be read is set aside: its hash is learnt, and hidden, later.
        """
        for blob in await self._table.of(mxcs):
            await self._isolation.run(
                Queue.HASHING, [blob], self._read_each, key=lambda one: str(one.blob_id), store=lambda one: one.store
            )

    async def learn_suspects(self) -> dict[str, Any]:
        """Learn some of the hashes that may be hidden ones, before anybody asks for the media."""
        found = await self._table.suspects(_BATCH)
        for blob in found:
            await self._isolation.run(
                Queue.HASHING, [blob], self._learn_each, key=lambda one: str(one.blob_id), store=lambda one: one.store
            )
        return {"hashed": len(found)}

    async def _learn_each(self, blobs: Sequence[Blob]) -> int:
        for blob in blobs:
            await self._hash(blob)
        return len(blobs)

    async def _read_each(self, blobs: Sequence[Blob]) -> int:
        for blob in blobs:
            await self.flights.run(blob.blob_id, partial(self._read, blob))
        return len(blobs)

    async def _read(self, blob: Blob) -> None:
        with suppress(ObjectMissingError):
            await self._hash(blob)

    async def _hash(self, blob: Blob) -> None:
        sink = HashingSink()
        async with self._stores.named(blob.store).open(blob.object_key, known_bytes=blob.size_bytes) as stored:
            await stored.send_to(sink)
        await self._table.keep(blob, sink.sha256.digest())
