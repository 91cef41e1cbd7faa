"""Content on its way out: whole, in order, and what its hash says."""

import asyncio
import hashlib
from dataclasses import dataclass

from mediarepo.errors import UnavailableError
from mediarepo.model.byte_stream import Sink, Span
from mediarepo.model.media import Blob
from mediarepo.services.markers import NOT_OURS, Markers
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import ObjectMissingError, StorageUnavailableError

_ATTEMPTS = 4
_PAUSE_S = 0.5


class DamagedContentError(Exception):
    """The object is not what its row says; the message tells how."""


class _Measuring:
    """Passes bytes on, and keeps their number and hash."""

    def __init__(self, sink: Sink | None) -> None:
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.sink_failed = False
        self._sink = sink

    async def write(self, data: bytes) -> None:
        self.sha256.update(data)
        self.size_bytes += len(data)
        if self._sink is not None:
            self.sink_failed = True
            await self._sink.write(data)
            self.sink_failed = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Reads content from S3, in pieces."""

    stores: Stores
    markers: Markers

    async def send(self, blob: Blob, sha256: bytes | None, sink: Sink | None) -> bytes:
        """Push content to a sink, if there is one; gives its hash.

        When S3 breaks off, it is asked for the rest; a sink that fails is not tried again. Raises ObjectMissingError
        (an object missing in a bucket that is not ours is an outage),
        StorageUnavailableError, and DamagedContentError, before the first byte or after the last one was pushed.
        """
        measuring = _Measuring(sink)
        for attempt in range(_ATTEMPTS):
            try:
                await self._send_rest(blob, measuring)
                break
            except ObjectMissingError as exc:
                if not await self.markers.is_ours(self.stores.named(blob.store)):
                    raise UnavailableError(f"store {blob.store}: {NOT_OURS}", retry_after_s=60) from exc
                raise
            except StorageUnavailableError:
                if measuring.sink_failed or attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_PAUSE_S * 2**attempt)
        found = measuring.sha256.digest()
        if sha256 is not None and found != sha256:
            raise DamagedContentError(f"the object {blob.object_key} has another hash than its row says")
        return found

    async def _send_rest(self, blob: Blob, measuring: _Measuring) -> None:
        done = measuring.size_bytes
        if done and done == blob.size_bytes:
            return
        span = Span(done, blob.size_bytes - done) if done else None
        async with self.stores.named(blob.store).open(blob.object_key, span, known_bytes=blob.size_bytes) as stored:
            if done + stored.size_bytes != blob.size_bytes:
                words = f"the object {blob.object_key} has {stored.size_bytes} bytes, its row says {blob.size_bytes}"
                raise DamagedContentError(words)
            await stored.send_to(measuring)
