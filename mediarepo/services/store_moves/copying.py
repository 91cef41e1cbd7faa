"""Copies objects from one store to another, and makes sure that the copies are right.

A copy is right when the server says the same MD5 of it (an ETag that is one), or when it was read back and has the
hash that it should have. An ETag that is no MD5 proves nothing, and is not believed.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from mediarepo.db.sweep import UploadIntents
from mediarepo.model.byte_stream import ByteRange
from mediarepo.model.ids import new_object_key
from mediarepo.model.store_moves import MovableObject
from mediarepo.services.imports.throttle import KeyPool, Throttle
from mediarepo.storage.control import CopySource, ObjectFacts
from mediarepo.storage.errors import (
    ObjectMissingError,
    StorageError,
    StorageUnavailableError,
    WrongLengthError,
)
from mediarepo.storage.store import Store
from mediarepo.storage.stored_object import StoredObject

log = structlog.get_logger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")
_GIB = 1024**3
_MAX_COPY_BYTES = 5 * _GIB
"""What one CopyObject takes at most (API reference: CopyObject)."""
_MAX_PARTS = 10_000
_FEW = 3


class WrongContentError(StorageError):
    """An object's bytes are not what the database says, or a copy's not what was copied."""


@dataclass(slots=True)
class _Hashes:
    """Hashes of bytes that passed through, and the ETags that a server may give an object of them."""

    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    md5: "hashlib._Hash" = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    parts: list[bytes] = field(default_factory=list)

    def add(self, pieces: Sequence[bytes]) -> None:
        part = hashlib.md5(usedforsecurity=False)
        for piece in pieces:
            self.sha256.update(piece)
            self.md5.update(piece)
            part.update(piece)
        self.parts.append(part.digest())

    def etags(self) -> set[str]:
        of_parts = hashlib.md5(b"".join(self.parts), usedforsecurity=False).hexdigest()
        return {self.md5.hexdigest(), f"{of_parts}-{len(self.parts)}"}


@dataclass(slots=True, kw_only=True)
class ObjectCopier:
    """Copies objects of `source` to new keys of `target`; the keys have intents with `holder`.

    `near`: both stores are on one server, which copies by itself while it does not refuse. At most one part of each
    object is in memory.
    """

    source: Store
    target: Store
    near: bool
    keys: KeyPool
    intents: UploadIntents
    holder: str
    pace: Throttle
    part_bytes: int
    now_ms: Callable[[], int]
    on_bytes: Callable[[int], None]
    max_copy_bytes: int = _MAX_COPY_BYTES
    _refusals: int = 0

    async def examine(self, found: MovableObject) -> ObjectFacts:
        """Look at an object before it is moved.

        Raises ObjectMissingError, or WrongLengthError when it has another length than the database knows.
        """
        facts = await self.source.facts_of(found.object_key)
        if facts is None:
            raise ObjectMissingError(found.object_key)
        if facts.size_bytes != found.size_bytes:
            raise WrongLengthError(
                f"it has {facts.size_bytes} bytes, where the database knows {found.size_bytes}: see `mediarepo fsck`"
            )
        return facts

    async def copy(self, found: MovableObject, facts: ObjectFacts, metadata: Mapping[str, str]) -> str:
        """Copy an object, and verify the copy; gives its key.

        Raises WrongContentError when the bytes are not what they should be, StorageError when S3 refuses.
        """
        if self.near and self._refusals < _FEW:
            key = await self._copy_within_server(found, facts, metadata)
            if key is not None:
                return key
        key, hashes = await self._stream(found, metadata)
        sha256 = hashes.sha256.digest()
        if found.sha256 not in {None, sha256}:
            raise WrongContentError("its bytes have another SHA-256 than the database knows: see `mediarepo fsck`")
        await self._verify(found, key, hashes.etags(), sha256)
        return key

    async def _copy_within_server(
        self, found: MovableObject, facts: ObjectFacts, metadata: Mapping[str, str]
    ) -> str | None:
        """Have the server copy; None when it refuses: then the bytes are read, which tells whose fault it is."""
        source = CopySource(self.source.bucket, found.object_key, found.size_bytes, facts.etag or None)
        try:
            if found.size_bytes > self.max_copy_bytes:
                key = await self._copy_in_parts(source, found, metadata)
            else:
                key = await self.keys.take(self.target, found.store_class)
                await self.target.copy(source, key, metadata=metadata)
        except StorageError as exc:
            if isinstance(exc, StorageUnavailableError) and (exc.transient or exc.timed_out):
                raise
            self._refusals += 1
            log.warning("s3_copy_refused", from_store=self.source.name, to_store=self.target.name, reason=str(exc))
            return None
        self._refusals = 0
        await self._verify(found, key, {facts.etag} if _MD5.fullmatch(facts.etag) else set(), found.sha256)
        return key

    async def _copy_in_parts(self, source: CopySource, found: MovableObject, metadata: Mapping[str, str]) -> str:
        key, upload_id = await self._begin(found, metadata)
        etags = []
        part_bytes = max(_GIB, self._part_bytes(found.size_bytes))
        for number, offset in enumerate(range(0, found.size_bytes, part_bytes), 1):
            byte_range = ByteRange(offset, min(part_bytes, found.size_bytes - offset))
            etags.append(await self.target.copy_part(source, key, upload_id, number, byte_range))
        await self.target.complete_multipart(key, upload_id, etags, size_bytes=found.size_bytes)
        return key

    async def _begin(self, found: MovableObject, metadata: Mapping[str, str]) -> tuple[str, str]:
        key = new_object_key(self.target.prefix, found.store_class, self.now_ms(), intended=True)
        await self.intents.begin(self.target.name, key, self.holder)
        upload_id = await self.target.begin_multipart(key, metadata=metadata)
        await self.intents.beat(self.target.name, key, upload_id)
        return key, upload_id

    def _part_bytes(self, size_bytes: int) -> int:
        return max(self.part_bytes, -(-size_bytes // _MAX_PARTS))

    async def _stream(self, found: MovableObject, metadata: Mapping[str, str]) -> tuple[str, _Hashes]:
        """Read an object and store its bytes anew; gives the key and the hashes of what was read."""
        hashes, part_bytes = _Hashes(), self._part_bytes(found.size_bytes)
        async with self.source.open(found.object_key, known_bytes=found.size_bytes) as stored:
            if stored.size_bytes != found.size_bytes:
                raise WrongLengthError(f"S3 gives {stored.size_bytes} bytes instead of {found.size_bytes}")
            if found.size_bytes <= part_bytes:
                key = await self.keys.take(self.target, found.store_class)
                pieces = [piece async for piece in _pieces(stored, found.size_bytes, self.pace)]
                hashes.add(pieces)
                await self.target.put(key, pieces, size_bytes=found.size_bytes, metadata=metadata)
                self.on_bytes(found.size_bytes)
            else:
                key = await self._stream_parts(found, stored, hashes, part_bytes, metadata)
        return key, hashes

    async def _stream_parts(
        self, found: MovableObject, stored: StoredObject, hashes: _Hashes, part_bytes: int, metadata: Mapping[str, str]
    ) -> str:
        key, upload_id = await self._begin(found, metadata)
        etags, left, rest = list[str](), found.size_bytes, b""
        try:
            while left:
                wanted = min(part_bytes, left)
                pieces = [rest, *[piece async for piece in _pieces(stored, wanted - len(rest), self.pace)]]
                data = b"".join(pieces)
                part, rest = data[:wanted], data[wanted:]
                hashes.add([part])
                etag = await self.target.put_part(key, upload_id, len(etags) + 1, [part], size_bytes=wanted)
                etags.append(etag)
                left -= wanted
                self.on_bytes(wanted)
            await self.target.complete_multipart(key, upload_id, etags, size_bytes=found.size_bytes)
        except BaseException:
            with suppress(StorageError):  # what stays open is aborted with its intent
                await self.target.abort_multipart(key, upload_id)
            raise
        return key

    async def _verify(self, found: MovableObject, key: str, etags: set[str], sha256: bytes | None) -> None:
        """Make sure that a copy is what it should be; without a known hash, of what it is a copy."""
        made = await self.target.facts_of(key)
        if made is None or made.size_bytes != found.size_bytes:
            raise WrongContentError("its copy is not there in the right length")
        if made.etag in etags:
            return
        wanted = sha256 or await self._hash(self.source, found.object_key)
        if await self._hash(self.target, key) != wanted:
            raise WrongContentError("its copy has another SHA-256")

    async def _hash(self, store: Store, object_key: str) -> bytes:
        sha256 = hashlib.sha256()
        async with store.open(object_key) as stored:
            async for piece in _pieces(stored, stored.size_bytes, self.pace):
                sha256.update(piece)
        return sha256.digest()


async def _pieces(stored: StoredObject, at_least: int, pace: Throttle) -> AsyncIterator[bytes]:
    """Receive so many bytes, and what came with the last of them; as fast as the limit allows."""
    while at_least > 0:
        piece = await stored.receive()
        if not piece:
            return
        await pace.bytes.take(len(piece))
        yield piece
        at_least -= len(piece)
