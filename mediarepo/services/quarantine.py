"""Quarantines media by address, hash, user, room or server, and computes the hashes that this needs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import structlog

from mediarepo.config.admin import QuarantineConfig
from mediarepo.db.media_admin import MediaAdminTable
from mediarepo.db.media_marks import MarkTable
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.unverified_hashes import UnverifiedHashTable
from mediarepo.errors import InvalidParamError, NotFoundError, UnavailableError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.model.authority import Action, Thing
from mediarepo.model.concurrency import SingleFlight
from mediarepo.model.marks import OPERATOR, AdminAction, LeftOut, MarkKind, Outcome, without_short_content
from mediarepo.model.media import Blob
from mediarepo.model.media_admin import Change, HiddenHash
from mediarepo.model.mxc import Mxc, parse_mxc, spellings
from mediarepo.model.tasks import Queue
from mediarepo.services.authorization import Admin, Authorization
from mediarepo.services.batch_isolation import BatchIsolation
from mediarepo.services.stores import Stores
from mediarepo.storage.errors import ObjectMissingError

_PATIENCE_S = 30
_HASH_BATCH = 100


class HashingSink:
    """A sink that only hashes."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        """Hash a piece."""
        self.sha256.update(data)


class HashLearner:
    """Computes and stores hashes of content in S3; concurrent requests for one blob read it once."""

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
        """Compute a blob's hash. Raises UnavailableError when that takes too long; it continues in the background."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.flights.run(blob.blob_id, partial(self._read, blob))
        except TimeoutError as exc:
            raise UnavailableError("the content is being checked; try again", retry_after_s=_PATIENCE_S) from exc

    async def learn_media(self, mxcs: Sequence[Mxc]) -> None:
        """Compute the hashes of media about to be quarantined, so that equal content is quarantined with them.

        Content that cannot be read is set aside, and hashed and quarantined later.
        """
        for blob in await self._table.of(mxcs):
            await self._isolation.run(
                Queue.HASHING, [blob], self._read_each, key=lambda one: str(one.blob_id), store=lambda one: one.store
            )

    async def learn_suspects(self) -> dict[str, Any]:
        """Compute some hashes that may be quarantined ones, before the media are requested."""
        found = await self._table.suspects(_HASH_BATCH)
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


log = structlog.get_logger(__name__)

_PAGE = 1000
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Quarantines media and all equal content: a homeserver's admin for its users, the operator for all."""

    config: QuarantineConfig
    table: QuarantineTable
    marks: MarkTable
    records: MediaAdminTable
    authorization: Authorization
    homeserver_admins: HomeserverAdmins
    hashing: HashLearner
    reads_through: bool

    async def hide(self, mxc: Mxc, admin: Admin, *, reason: str | None = None) -> Outcome:
        """Quarantine media; unknown remote media are quarantined in advance."""
        return await self._hide([mxc], admin, "quarantine", str(mxc), reason)

    async def hide_user_media(self, user_id: str, admin: Admin, *, reason: str | None = None) -> Outcome:
        """Quarantine everything that a user uploaded."""
        self.authorization.check_user(admin, Action.HIDE, user_id)
        found = await self.table.of_user(user_id, hidden_from=self.authorization.out_of_reach(admin))
        return await self._hide(found, admin, "quarantine_user", user_id, reason)

    async def hide_room_media(self, room_id: str, admin: Admin) -> Outcome:
        """Hide all media that a room's events mention, as far as the homeserver knows them.

        Raises InvalidParamError without an admin's access token, which the homeserver asks for.
        """
        self.authorization.check(admin, Action.HIDE, Thing.ROOM)
        if admin.token is None:
            raise InvalidParamError("only the homeserver knows a room's media: use an access token of its admin")
        uris = await self.homeserver_admins.room_media(admin.homeserver, admin.token, room_id)
        return await self._hide(sorted(_parsed(uris)), admin, "quarantine_room", room_id, None)

    async def hide_server(self, server_name: str, admin: Admin, *, reason: str | None) -> bool:
        """Hide all media of another server. Raises InvalidParamError when the server is one of ours."""
        if self.authorization.tenants.is_ours(server_name):
            raise InvalidParamError("only other servers can be quarantined as a whole")
        self.authorization.check(admin, Action.HIDE, Thing.SERVER)
        server_name, _ = spellings(server_name)
        return await self.table.hide_server(server_name, self._act(admin, "quarantine_server", reason))

    async def show_server(self, server_name: str, admin: Admin, *, reason: str | None = None) -> bool:
        """Lift the quarantine of another server."""
        self.authorization.check(admin, Action.UNHIDE, Thing.SERVER)
        act = self._act(admin, "unquarantine_server", reason)
        return await self.table.show_server({server_name, spellings(server_name)[0]}, act)

    async def show(self, mxc: Mxc, admin: Admin, *, reason: str | None = None) -> Outcome:
        """Lift the actor's own quarantine. Raises ForbiddenError when only somebody above has quarantined it."""
        self.authorization.check_media(admin, Action.UNHIDE, mxc)
        return await self.table.show([mxc], self._act(admin, "unquarantine", reason), str(mxc))

    async def protect(self, mxc: Mxc, admin: Admin, *, protected: bool, reason: str | None = None) -> Outcome:
        """Protect media against quarantine by the actor and those below, or end that."""
        self.authorization.check_media(admin, Action.PROTECT if protected else Action.UNPROTECT, mxc)
        if protected:
            return await self.marks.put(mxc, MarkKind.PROTECTION, self._act(admin, "protect", reason))
        return await self.marks.lift(mxc, MarkKind.PROTECTION, self._act(admin, "unprotect", reason))

    async def hide_hashes(self, hashes: Sequence[bytes], admin: Admin, *, reason: str | None) -> int:
        """Quarantine content by SHA-256, stored or not; hashes of trivial content are ignored."""
        self.authorization.check(admin, Action.HIDE, Thing.CONTENT)
        act, hashes = self._act(admin, "quarantine_hash", reason), without_short_content(hashes)
        return await self.table.hide_hashes(hashes, act, scopes=self._scopes(act))

    async def show_hashes(self, hashes: Sequence[bytes], admin: Admin, *, reason: str | None = None) -> int:
        """Lift the quarantine of content by SHA-256."""
        self.authorization.check(admin, Action.UNHIDE, Thing.CONTENT)
        return await self.table.show_hashes(hashes, self._act(admin, "unquarantine_hash", reason))

    async def all_hashes(self) -> AsyncIterator[HiddenHash]:
        """Iterate over all quarantined hashes, in order."""
        after = b""
        while page := await self.table.hashes(after, _PAGE):
            after = page[-1].sha256
            for one in page:
                yield one

    async def changes(self, admin: Admin, after_id: int, limit: int) -> list[Change]:
        """Return quarantine changes as the admin's homeserver sees them, oldest first.

        Raises InvalidParamError for a number that does not exist yet.
        """
        viewer = self.authorization.viewer(admin) or OPERATOR
        if after_id > await self.table.last_change(viewer=viewer):
            raise InvalidParamError("Query parameter from is higher than the newest change")
        return await self.table.changes(after_id, limit, viewer=viewer)

    async def _hide(self, mxcs: Sequence[Mxc], admin: Admin, action: str, target: str, reason: str | None) -> Outcome:
        act = self._act(admin, action, reason)
        reached = [mxc for mxc in mxcs if self.authorization.may_with_media(admin, Action.HIDE, mxc)]
        found = [mxc for mxc in reached if await self._can_be_hidden(mxc)]
        left_out = {
            LeftOut.OUT_OF_REACH: len(mxcs) - len(reached),
            LeftOut.UNKNOWN: len(reached) - len(found),
        }
        await self._learn(found)
        total = Outcome(0, {str(name): count for name, count in left_out.items() if count})
        for start in range(0, max(len(found), 1), _BATCH):
            total += await self.table.hide(found[start : start + _BATCH], act, target, scopes=self._scopes(act))
        return total

    async def _learn(self, mxcs: Sequence[Mxc]) -> None:
        """Learn the hashes of content, so that equal content is hidden too; until then its blob hides it."""
        try:
            await self.hashing.learn_media(mxcs)
        except UnavailableError as exc:
            log.warning("quarantine_hashing_failed", media=len(mxcs), reason=str(exc))

    async def _can_be_hidden(self, mxc: Mxc) -> bool:
        """Leave out what nobody has and nobody can get: unknown ids of our own homeservers.

        While media are read through, they are hidden before they have come.
        """
        return (
            self.reads_through
            or not self.authorization.tenants.is_ours(mxc.server_name)
            or (await self.records.get(mxc, None) is not None)
        )

    def _scopes(self, act: AdminAction) -> list[str]:
        """Say whom content is hidden from by its hash: all, or the homeserver and those that share with it."""
        if act.by_operator:
            return [OPERATOR]
        return self.config.sharing(act.owner, act.at)

    def _act(self, admin: Admin, action: str, reason: str | None) -> AdminAction:
        return self.authorization.admin_action(admin, action, reason)


def _parsed(uris: Sequence[str]) -> set[Mxc]:
    """Read addresses as events mention them, fragments left out; what is no address is passed over."""
    found = set()
    for uri in uris:
        server_name, _, media_id = uri.removeprefix("mxc://").partition("#")[0].partition("/")
        try:
            found.add(parse_mxc(server_name, media_id))
        except (InvalidParamError, NotFoundError):
            continue
    return found
