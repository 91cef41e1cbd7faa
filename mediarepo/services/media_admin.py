"""Media, users and usage as admins may see them."""

from dataclasses import dataclass, replace
from functools import partial

from mediarepo.db.media_admin import MediaAdminTable, MediaSearchTable, StoredContentTable
from mediarepo.db.usage import Counter, StatisticsTable, UsageDayTable, UsageTable
from mediarepo.errors import BadRequestError, InvalidParamError, NotFoundError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.model.media_admin import MediaRecord, Page, RecordOrder, UserOrder, UserUsage
from mediarepo.model.mxc import Mxc
from mediarepo.model.retention import RetentionClass
from mediarepo.model.tasks import Queue
from mediarepo.model.usage import ObjectUsage, Usage, UsageBy, UsageClass, UsageFilter
from mediarepo.services.access_policy import check_record
from mediarepo.services.authorization import Admin
from mediarepo.services.batch_isolation import BatchIsolation

_MOST_NAMES = 500
"""For longer pages the homeserver is not asked for each user's display name."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Offset, limit and order of a page."""

    start: int
    limit: int
    backwards: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaAdmin:
    """Reads media with all their metadata, and users' statistics."""

    table: MediaAdminTable
    statistics: StatisticsTable
    searches: MediaSearchTable
    contents: StoredContentTable
    homeserver_admins: HomeserverAdmins

    async def get(self, mxc: Mxc, viewer: str | None) -> MediaRecord:
        """Return media as a homeserver sees it (None: all). Raises NotFoundError when it is unknown or deleted."""
        return check_record(await self.table.get(mxc, viewer))

    async def get_any(self, mxc: Mxc, viewer: str | None) -> MediaRecord:
        """Return media, in the trash or not. Raises NotFoundError when it is unknown or deleted for good."""
        return check_record(await self.table.get(mxc, viewer), trashed=True)

    async def of_user(self, user_id: str, admin: Admin, order: RecordOrder, page_request: PageRequest) -> Page:
        """Return a page of a user's uploads.

        Raises InvalidParamError when it is no user id, BadRequestError when the user belongs to another homeserver than
        the admin, NotFoundError when the homeserver does not know the user.
        """
        if not user_id.startswith("@"):
            raise InvalidParamError("Expected UserID string to start with '@'")
        if user_id.partition(":")[2] != admin.homeserver.server_name:
            raise BadRequestError("Can only look up local users")
        page = await self.table.of_user(
            user_id,
            admin.homeserver.server_name,
            order=order,
            backwards=page_request.backwards,
            start=page_request.start,
            limit=page_request.limit,
        )
        if not page.total and not await self._exists(user_id, admin):
            raise NotFoundError("Unknown user")
        return page

    async def _exists(self, user_id: str, admin: Admin) -> bool:
        """Ask the homeserver, where it can be asked."""
        if admin.token is None:
            return True
        return await self.homeserver_admins.user_exists(admin.homeserver, admin.token, user_id)

    async def of_users(
        self,
        admin: Admin,
        order: UserOrder,
        page_request: PageRequest,
        *,
        from_ts: int,
        until_ts: int | None,
        search_term: str | None,
    ) -> tuple[list[UserUsage], int]:
        """Return a page of users' statistics, and the number of users."""
        users, total = await self.statistics.of_users(
            admin.homeserver.server_name,
            order=order,
            backwards=page_request.backwards,
            start=page_request.start,
            limit=page_request.limit,
            from_ts=from_ts,
            until_ts=until_ts,
            search_term=search_term,
        )
        if admin.token is not None and len(users) <= _MOST_NAMES:
            names = await self.homeserver_admins.displaynames(
                admin.homeserver, admin.token, [user.user_id for user in users]
            )
            users = [replace(user, displayname=names.get(user.user_id)) for user in users]
        return users, total


_BATCH = 5_000
_COUNTERS: tuple[Counter, ...] = ("media", "object")
_THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReports:
    """Reads the usage counters."""

    table: UsageTable
    days: UsageDayTable
    isolation: BatchIsolation

    async def fold(self) -> int:
        """Fold changes into the counters; returns how many."""
        total = 0
        async with self.isolation.drain_queue(Queue.USAGE):
            for counter in _COUNTERS:
                total += await self._fold(counter)
        await self.table.forget_empty()
        return total

    async def _fold(self, counter: Counter) -> int:
        total = 0
        while delta_ids := await self.table.deltas(counter, _BATCH):
            outcome = await self.isolation.run(
                Queue.USAGE, delta_ids, partial(self.table.fold, counter), key=lambda one: f"{counter} {one}"
            )
            total += outcome.done
            if not outcome.done and not outcome.failed:
                break  # others are at them
        return total

    async def of_media(self, by: list[UsageBy], only: UsageFilter, limit: int) -> list[Usage]:
        """Return the usage of media in groups, largest first."""
        return await self.table.of_media(by, only, limit)

    async def of_objects(self) -> list[ObjectUsage]:
        """Return the usage of each store."""
        return await self.table.of_objects()

    async def of_user(self, user_id: str) -> Usage:
        """Return a user's usage."""
        found = await self.table.of_media([], UsageFilter(UsageClass.LOCAL, user_id.partition(":")[2], user_id), 1)
        return found[0] if found else Usage({}, 0, 0)

    async def of_class(self, retention_class: RetentionClass) -> int:
        """Return the bytes that a retention policy's budget counts."""
        if retention_class is RetentionClass.THUMBNAILS:
            return sum(one.size_bytes for one in await self.of_objects() if one.object_class == _THUMBNAILS)
        found = await self.table.of_media([], UsageFilter(UsageClass(retention_class.value)), 1)
        return found[0].size_bytes if found else 0
