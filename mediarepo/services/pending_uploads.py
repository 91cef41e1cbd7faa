"""Media ids that are created before their content (client-server API, "Asynchronous uploads")."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from mediarepo.config.media import UploadsConfig
from mediarepo.db.publishing import PendingTable
from mediarepo.errors import CannotOverwriteMediaError, ForbiddenError, NotFoundError
from mediarepo.model.failed_items import Queue
from mediarepo.model.media import MediaState, PendingMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.requester import Requester
from mediarepo.model.tasks import Lease
from mediarepo.services.batch_isolation import BatchIsolation, each_of
from mediarepo.services.downloads import ReadThroughSource
from mediarepo.services.leases import LeaseHolder
from mediarepo.services.quotas import Quotas

_BATCH = 500
_KEPT_AFTER_EXPIRY_MS = 24 * 3_600_000
"""An upload that began in time may end later; its row must still be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUploads:
    """Announces media ids, and lets their creator fill each once (client-server API, asynchronous uploads)."""

    config: UploadsConfig
    table: PendingTable
    lease_holder: LeaseHolder
    quotas: Quotas
    isolation: BatchIsolation
    read_through: ReadThroughSource | None = None

    async def create(self, mxc: Mxc, requester: Requester) -> PendingMedia:
        """Announce a media id for content that is to follow."""
        limit = self.quotas.max_pending(requester)
        return await self.table.create(mxc, requester.user_id, lifetime_ms=self.config.pending_lifetime_ms, limit=limit)

    @asynccontextmanager
    async def claim(self, mxc: Mxc, requester: Requester) -> AsyncIterator[Lease]:
        """Hold the right to fill a media id; an upload that fails leaves the id as it was.

        Refused, in this order: an id that nobody created, one that is being filled, one of another user, one that has
        content, one that has expired.
        """
        announced = await self.table.get(mxc)
        if self.read_through is not None and (announced is None or announced.state is MediaState.PENDING):
            await self.read_through.import_media(mxc, unauthenticated=False)
            announced = await self.table.get(mxc)
        if announced is None:
            raise NotFoundError("there is no such media id")
        async with self.lease_holder.acquire(f"upload {mxc}") as lease:
            if lease is None:
                raise CannotOverwriteMediaError("the media is being uploaded already")
            await self._check(mxc, requester)
            yield lease

    async def _check(self, mxc: Mxc, requester: Requester) -> None:
        announced = await self.table.get(mxc)
        if announced is None:
            raise NotFoundError("there is no such media id")
        if announced.uploaded_by != requester.user_id:
            raise ForbiddenError("only the user who created the media id may upload to it")
        if announced.state is not MediaState.PENDING:
            raise CannotOverwriteMediaError("the media has been uploaded already")
        if announced.expired:
            raise NotFoundError("the media id has expired")

    async def forget_expired(self) -> None:
        """Remove ids that ran out long ago, and promises of room that nobody redeemed."""
        await each_of(
            self._forget_media,
            self.quotas.table.forget_expired,
            partial(self.lease_holder.leases.forget_expired, _KEPT_AFTER_EXPIRY_MS),
        )

    async def _forget_media(self) -> None:
        forget = partial(self.table.forget_expired, age_ms=_KEPT_AFTER_EXPIRY_MS)
        async with self.isolation.whole_queue(Queue.PENDING_MEDIA):
            while mxcs := await self.table.expired(_KEPT_AFTER_EXPIRY_MS, _BATCH):
                await self.isolation.run(Queue.PENDING_MEDIA, mxcs, forget)
