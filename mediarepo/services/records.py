"""What admins may know of media and users."""

from dataclasses import dataclass, replace

from mediarepo.db.media_admin import RecordTable, SearchTable
from mediarepo.db.usage import StatisticsTable
from mediarepo.errors import BadRequestError, InvalidParamError, NotFoundError
from mediarepo.homeserver.admin_api import HomeserverAdmins
from mediarepo.model.media import MediaState
from mediarepo.model.media_admin import MediaRecord, Page, RecordOrder, UserOrder, UserUsage
from mediarepo.model.mxc import Mxc
from mediarepo.services.admins import Admin

_MOST_NAMES = 500
"""For longer pages the homeserver is not asked for each user's display name."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which part of a list is asked for."""

    start: int
    limit: int
    backwards: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Reads media with all that is known of them, and who takes up how much."""

    table: RecordTable
    statistics: StatisticsTable
    searches: SearchTable
    homeserver_admins: HomeserverAdmins

    async def get(self, mxc: Mxc, viewer: str | None) -> MediaRecord:
        """Read one as a homeserver sees it (None: all do); NotFoundError when it is unknown or has been deleted."""
        record = await self.table.get(mxc, viewer)
        if record is None or record.state is MediaState.TRASHED:
            raise NotFoundError("Unknown media")
        return record

    async def get_any(self, mxc: Mxc, viewer: str | None) -> MediaRecord:
        """Read one, in the trash or not, as `get` does; NotFoundError when it is unknown or gone for good."""
        record = await self.table.get(mxc, viewer)
        if record is None:
            raise NotFoundError("Unknown media")
        return record

    async def of_user(self, user_id: str, admin: Admin, order: RecordOrder, stretch: Stretch) -> Page:
        """Read a stretch of a user's uploads; the user must be one of the admin's homeserver."""
        if not user_id.startswith("@"):
            raise InvalidParamError("Expected UserID string to start with '@'")
        if user_id.partition(":")[2] != admin.homeserver.server_name:
            raise BadRequestError("Can only look up local users")
        page = await self.table.of_user(
            user_id,
            admin.homeserver.server_name,
            order=order,
            backwards=stretch.backwards,
            start=stretch.start,
            limit=stretch.limit,
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
        stretch: Stretch,
        *,
        from_ts: int,
        until_ts: int | None,
        search_term: str | None,
    ) -> tuple[list[UserUsage], int]:
        """Read a stretch of what users take up, and how many they are."""
        users, total = await self.statistics.of_users(
            admin.homeserver.server_name,
            order=order,
            backwards=stretch.backwards,
            start=stretch.start,
            limit=stretch.limit,
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
