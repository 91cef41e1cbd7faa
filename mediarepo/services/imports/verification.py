"""Verifies imported content: by size, ETag, checksum or full read."""

import asyncio
import base64
import hashlib
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

from mediarepo.db.import_verification import ImportedContent, ImportedContentTable
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.importers.source import Source
from mediarepo.model.import_ledger import ImportReason, ImportSource, ItemState
from mediarepo.model.import_source import FileBytes
from mediarepo.model.media import Ownership, Sha256State
from mediarepo.services.quarantine import HashingSink
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import ObjectMissingError
from mediarepo.storage.store import ListedObject, Store

_SAMPLE = re.compile(r"sample:(\d+(?:\.\d+)?)%?", re.ASCII)
_BATCH = 200
_FEW = 10
_RULE_OF_THREE = 3.0
"""With so many expected among n, seeing none has a chance of 5 %."""


class WrongBucketError(Exception):
    """So much is missing that it must be the wrong bucket; nothing was recorded."""


class VerifyLevel(StrEnum):
    """How thoroughly to verify."""

    SIZE = "size"
    ETAG = "etag"
    SERVER = "server"
    FULL = "full"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class VerifyScope:
    """A level, and the `share` of contents that are verified."""

    level: VerifyLevel
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "VerifyScope":
        """Parse a level of the command line. Raises ValueError naming the allowed ones."""
        match = _SAMPLE.fullmatch(text)
        if match is not None and 0 < float(match[1]) <= 100:  # noqa: PLR2004 - per cent
            return cls(VerifyLevel.SAMPLE, float(match[1]) / 100)
        if text in {VerifyLevel.SIZE, VerifyLevel.ETAG, VerifyLevel.SERVER, VerifyLevel.FULL}:
            return cls(VerifyLevel(text))
        raise ValueError(f"{text!r} is not a level: size, etag, server, full, or sample:1%")


@dataclass(slots=True)
class VerifyReport:
    """Results of a verification; `shallow` were only compared by size, because nothing else is known."""

    checked: int = 0
    shallow: int = 0
    learnt: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """Return the upper bound of the share of wrong contents, at 95 % confidence, if none was found."""
        return min(1.0, _RULE_OF_THREE / self.checked) if self.checked else 1.0


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Compares contents with the bucket, the source's files, and their hashes."""

    contents: ImportedContentTable
    hashing: UnverifiedHashTable
    stores: Stores
    source: Source
    part_bytes: int
    jobs: int
    chance: Callable[[], float] = random.random

    async def verify(self, known: ImportSource, verify_scope: VerifyScope, findings: VerifyReport) -> None:
        """Verify everything, or a sample; wrong contents are not served any longer, and each is yielded."""
        async for mxc in self.contents.lost(known.source_id):
            findings.wrong.append((str(mxc), "known to be missing; `mediarepo fsck --accept-losses` accepts the loss"))
        for name, ownership in await self.contents.stores(known.source_id):
            store = self.stores.named(name)
            batch: list[tuple[ImportedContent, ListedObject | None]] = []
            async with aclosing(self._met(known, store, ownership)) as met:
                async for pair in met:
                    if verify_scope.level is VerifyLevel.SAMPLE and self.chance() >= verify_scope.share:
                        continue
                    batch.append(pair)
                    if len(batch) == _BATCH:
                        await self._check_batch(known, store, batch, verify_scope.level, findings)
                        batch = []
            await self._check_batch(known, store, batch, verify_scope.level, findings)

    async def _met(
        self, known: ImportSource, store: Store, ownership: Ownership
    ) -> AsyncGenerator[tuple[ImportedContent, ListedObject | None], None]:
        """Walk through contents and LIST side by side, a thousand objects with each request."""
        ends = await self.contents.key_range(known.source_id, store.name, ownership)
        listed = store.list(_shared(*ends))
        head = await anext(listed, None)
        async for content in self.contents.by_key(known.source_id, store.name, ownership):
            key = content.blob.object_key
            while head is not None and head.key.encode() < key.encode():
                head = await anext(listed, None)
            yield content, head if head is not None and head.key == key else None

    async def _check_batch(
        self,
        known: ImportSource,
        store: Store,
        batch: list[tuple[ImportedContent, ListedObject | None]],
        level: VerifyLevel,
        findings: VerifyReport,
    ) -> None:
        slots = asyncio.Semaphore(self.jobs)

        async def check(
            content: ImportedContent, listed: ListedObject | None
        ) -> tuple[ItemState, ImportReason, str] | None:
            async with slots:
                return await self._check(store, content, listed, level, findings)

        verdicts = await asyncio.gather(*(check(*pair) for pair in batch))
        missing = sum(verdict is not None and verdict[0] is ItemState.MISSING for verdict in verdicts)
        if missing > max(_FEW, len(batch) // 2):
            raise WrongBucketError(
                f"{missing} of {len(batch)} objects are not in the store {store.name}: is it the right one?"
            )
        good = []
        for (content, _), verdict in zip(batch, verdicts, strict=True):
            findings.checked += 1
            if verdict is None:
                good.append(content.blob.blob_id)
                continue
            state, reason, words = verdict
            findings.wrong.append((str(content.mxc), words))
            await self.contents.note_wrong(known.source_id, content.blob.blob_id, state, f"{reason}: {words}")
        await self.contents.note_verified(known.source_id, good, level)

    async def _check(
        self,
        store: Store,
        content: ImportedContent,
        listed: ListedObject | None,
        level: VerifyLevel,
        findings: VerifyReport,
    ) -> tuple[ItemState, ImportReason, str] | None:
        size_bytes = listed.size_bytes if listed is not None else await store.size_of(content.blob.object_key)
        if size_bytes is None:
            return ItemState.MISSING, ImportReason.NOT_FOUND, f"there is no object {content.blob.object_key}"
        if size_bytes != content.blob.size_bytes:
            words = f"{content.blob.object_key} has {size_bytes} bytes, and should have {content.blob.size_bytes}"
            return ItemState.MISMATCHED, ImportReason.SIZE, words
        match level:
            case VerifyLevel.ETAG:
                return await self._check_etag(content, listed, findings)
            case VerifyLevel.SERVER:
                return await self._check_server(store, content, findings)
            case VerifyLevel.FULL | VerifyLevel.SAMPLE:
                return await self._check_whole(store, content, findings)
            case _:
                return None

    async def _check_etag(
        self, content: ImportedContent, listed: ListedObject | None, findings: VerifyReport
    ) -> tuple[ItemState, ImportReason, str] | None:
        """Compare with the source's own file, if it still has it, without reading the object."""
        media = await self.source.lookup(content.mxc.server_name, content.mxc.media_id)
        found = (await self.source.locate(media)).found if media is not None else None
        if not isinstance(found, FileBytes) or listed is None or not re.fullmatch(r"[0-9a-f]{32}(-\d+)?", listed.etag):
            findings.shallow += 1
            return None
        async with aclosing(self.source.open(found)) as pieces:
            expected = await etag_of(pieces, self.part_bytes if "-" in listed.etag else None)
        if expected == listed.etag:
            return None
        return ItemState.MISMATCHED, ImportReason.HASH, f"{found.path} and {content.blob.object_key} differ"

    async def _check_server(
        self, store: Store, content: ImportedContent, findings: VerifyReport
    ) -> tuple[ItemState, ImportReason, str] | None:
        checksum = await store.checksum_of(content.blob.object_key)
        if checksum is None:
            findings.shallow += 1
            return None
        return await self._compare(content, base64.b64decode(checksum), findings)

    async def _check_whole(
        self, store: Store, content: ImportedContent, findings: VerifyReport
    ) -> tuple[ItemState, ImportReason, str] | None:
        sink = HashingSink()
        try:
            async with store.open(content.blob.object_key, known_bytes=content.blob.size_bytes) as stored:
                await stored.send_to(sink)
        except ObjectMissingError:
            return ItemState.MISSING, ImportReason.NOT_FOUND, f"there is no object {content.blob.object_key}"
        return await self._compare(content, sink.sha256.digest(), findings)

    async def _compare(
        self, content: ImportedContent, sha256: bytes, findings: VerifyReport
    ) -> tuple[ItemState, ImportReason, str] | None:
        if content.sha256 is not None and content.sha256 != sha256:
            return (
                ItemState.MISMATCHED,
                ImportReason.HASH,
                f"{content.blob.object_key} has another SHA-256 than it should",
            )
        if content.sha256_state is not Sha256State.VERIFIED:
            findings.learnt += content.sha256 is None
            await self.hashing.confirm(content.blob, sha256)
        return None


def _shared(first: str, last: str) -> str:
    """Give what two keys, and so all between them, begin with."""
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


async def etag_of(pieces: AsyncIterator[bytes], part_bytes: int | None) -> str:
    """Return the ETag that S3 gives bytes stored in one PUT, or (with `part_bytes`) in parts of that size."""
    whole = hashlib.md5(usedforsecurity=False)
    digests, part, filled = [], hashlib.md5(usedforsecurity=False), 0
    async for piece in pieces:
        if part_bytes is None:
            whole.update(piece)
            continue
        view = memoryview(piece)
        while view:
            taken = view[: part_bytes - filled]
            part.update(taken)
            filled, view = filled + len(taken), view[len(taken) :]
            if filled == part_bytes:
                digests.append(part.digest())
                part, filled = hashlib.md5(usedforsecurity=False), 0
    if part_bytes is None:
        return whole.hexdigest()
    if filled:
        digests.append(part.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
