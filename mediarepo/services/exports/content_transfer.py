"""Sends content to an export destination, checks its hash, and maps failures to results."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from mediarepo.errors import UnavailableError
from mediarepo.exporters.destination import RowRefusedError
from mediarepo.model.byte_stream import ByteRange, Sink
from mediarepo.model.exports import ExportMedia, ExportOutcome, ExportResult
from mediarepo.model.media import Blob
from mediarepo.services.stores import NOT_OURS, BucketMarkers, Stores
from mediarepo.storage.errors import ObjectMissingError, StorageUnavailableError, WrongLengthError

_ATTEMPTS = 4
_PAUSE_S = 0.5


class DamagedContentError(Exception):
    """The object does not match its row; the message says how."""


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
    markers: BucketMarkers

    async def send(self, blob: Blob, sha256: bytes | None, sink: Sink | None) -> bytes:
        """Read content from S3, into a sink if there is one; returns its SHA-256.

        When the connection to S3 breaks, the rest is requested; a sink that fails is not tried again. Raises
        ObjectMissingError, UnavailableError when an object is missing in a bucket that is not ours,
        StorageUnavailableError, and DamagedContentError when length or hash are wrong.
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
        byte_range = ByteRange(done, blob.size_bytes - done) if done else None
        try:
            async with self.stores.named(blob.store).open(
                blob.object_key, byte_range, known_bytes=blob.size_bytes
            ) as stored:
                await stored.send_to(measuring)
        except WrongLengthError as exc:
            raise DamagedContentError(str(exc)) from exc


ITEM_ERRORS = (RowRefusedError, DamagedContentError, UnavailableError)
"""Errors that concern one media; any other ends the export."""


def failed_result(media: ExportMedia, error: Exception) -> ExportResult:
    """Return the result for one of `ITEM_ERRORS`; raises any other error again."""
    match error:
        case RowRefusedError():
            return ExportResult(media, ExportOutcome.REFUSED, str(error))
        case ObjectMissingError():
            return ExportResult(media, ExportOutcome.MISSING, "its content is lost")
        case DamagedContentError():
            return ExportResult(media, ExportOutcome.DAMAGED, str(error))
        case UnavailableError():
            return ExportResult(media, ExportOutcome.FAILED, str(error) or error.message)
    raise error


_T = TypeVar("_T")
_R = TypeVar("_R")

_AHEAD = 4


async def map_in_order(
    things: AsyncGenerator[_T, None], work: Callable[[_T], Awaitable[_R]], *, jobs: int
) -> AsyncGenerator[_R, None]:
    """Run work on `jobs` items at once, in order, with a few items read ahead; the first failure ends it all."""
    slots = asyncio.Semaphore(jobs)

    async def do(thing: _T) -> _R:
        async with slots:
            return await work(thing)

    begun: deque[asyncio.Task[_R]] = deque()
    try:
        async with aclosing(things):
            async for thing in things:
                begun.append(asyncio.create_task(do(thing)))
                if len(begun) >= jobs * _AHEAD:
                    yield await _first(begun)
        while begun:
            yield await _first(begun)
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


async def _first(begun: deque[asyncio.Task[_R]]) -> _R:
    """Wait for the first one, or for any to fail."""
    while not begun[0].done():
        done, _ = await asyncio.wait([one for one in begun if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return begun.popleft().result()
