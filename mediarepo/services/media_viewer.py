"""Shows admins the pictures of media, quarantined ones included, and records in the audit log that they looked."""

from dataclasses import dataclass

from mediarepo.db.audit import AuditLog
from mediarepo.errors import ContentLostError, NotFoundError
from mediarepo.model.media import ThumbnailMethod, ThumbnailSpec
from mediarepo.model.mxc import Mxc
from mediarepo.services.access import MediaAccess
from mediarepo.services.access_policy import DownloadOptions
from mediarepo.services.authorization import Admin, Authorization
from mediarepo.services.thumbnails import Thumbnails

_SPEC = ThumbnailSpec(640, 480, ThumbnailMethod.SCALE, animated=False)


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail; `content_type` is one that browsers show as a picture."""

    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaViewer:
    """Gives admins the thumbnail of stored media."""

    thumbnails: Thumbnails
    access: MediaAccess
    authorization: Authorization
    audit: AuditLog

    async def view(self, mxc: Mxc, admin: Admin, *, reason: str | None) -> Picture:
        """Return the thumbnail, once the look stands in the audit log.

        Nothing is fetched from other servers. Raises CannotThumbnailError for what is no picture (encrypted media, for
        example), NotFoundError for media without stored content.
        """
        await self.audit.add(self.authorization.admin_action(admin, "view", reason), str(mxc), 1)
        try:
            return await self._read(mxc, admin)
        except ContentLostError:  # the thumbnail's object was lost: it is rendered anew
            return await self._read(mxc, admin)

    async def _read(self, mxc: Mxc, admin: Admin) -> Picture:
        options = DownloadOptions(tenant=admin.homeserver, allow_remote=False, see_hidden=True)
        found = await self.thumbnails.find(mxc, _SPEC, options)
        if found.thumbnail is None:
            raise NotFoundError("media not found")
        async with self.access.open(found) as stored:
            return Picture(found.thumbnail.content_type, await stored.read())
