"""What a media row means for a requester: quarantine, hash and state are read here alone.

`mediarepo.services.access` asks these questions in order; everything here is a plain function of a row.
"""

from dataclasses import dataclass

from mediarepo.config.homeservers import HomeserverConfig
from mediarepo.db.publishing import PendingUploadRow
from mediarepo.errors import CannotOverwriteMediaError, ForbiddenError, NotFoundError, NotYetUploadedError
from mediarepo.model.marks import OPERATOR
from mediarepo.model.media import Blob, FoundMedia, Media, MediaState, ThumbnailSpec
from mediarepo.model.media_admin import MediaRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions:
    """The terms of a request for media.

    `tenant` is the homeserver that is asked, `legacy` says that the request is unauthenticated, `wait_ms` how long it
    may wait for content that is to follow, `allow_remote` whether another server may be asked, and `see_hidden` that
    an admin bypasses quarantine.
    """

    tenant: HomeserverConfig | None
    legacy: bool = False
    wait_ms: int = 0
    allow_remote: bool = True
    see_hidden: bool = False

    @property
    def viewer(self) -> str:
        """The homeserver for whose users quarantine is evaluated."""
        return OPERATOR if self.tenant is None else self.tenant.server_name


def is_awaited(media: Media | None, options: DownloadOptions) -> bool:
    """Return whether content is still to come that the requester might have."""
    if media is None or media.state is not MediaState.PENDING:
        return False
    return options.see_hidden or not media.hidden


def may_be_imported(media: Media | None) -> bool:
    """Return whether an import source may have the content that is not here."""
    return media is None or (not media.hidden and media.state in {MediaState.PENDING, MediaState.MISSING})


def import_source_of(media: Media) -> int | None:
    """Return the import source that may have quarantined the media since; None when there is none to be asked."""
    return media.import_source_id if media.state is MediaState.READY and not media.hidden else None


def lacks_remote_content(media: Media | None) -> bool:
    """Return whether the content has to come from another server: not known yet, or lost."""
    return media is None or (media.remote and media.state is MediaState.MISSING and not media.hidden)


def unverified_blob(media: Media | None) -> Blob | None:
    """Return content that may be quarantined but whose hash is not verified, or None."""
    if media is None or media.state is not MediaState.READY:
        return None
    return media.blob if media.hash_unverified else None


def may_be_cached(found: FoundMedia, thumbnail: ThumbnailSpec | None) -> bool:
    """Return whether a row may be kept in memory: ready and not hidden, and with the thumbnail that was asked for."""
    media = found.media
    if media.hidden or media.hash_unverified or media.state is not MediaState.READY or media.blob is None:
        return False
    return thumbnail is None or found.thumbnail is not None


def check_access(media: Media | None, options: DownloadOptions, *, frozen: bool) -> Media:
    """Return the media if the requester may have it; `frozen`: not on the unauthenticated paths.

    Raises NotFoundError, the same for absent, quarantined, deleted and frozen media, and NotYetUploadedError.
    """
    if media is None or (media.hidden and not options.see_hidden):
        raise NotFoundError("media not found")
    if media.state is MediaState.PENDING:
        raise NotYetUploadedError("the media has not been uploaded yet")
    if media.state is not MediaState.READY or media.blob is None or (options.legacy and media.authenticated and frozen):
        raise NotFoundError("media not found")
    return media


def may_be_announced_at_source(announced: PendingUploadRow | None) -> bool:
    """Return whether an import source may know more of a media id that is to be filled."""
    return announced is None or announced.state is MediaState.PENDING


def check_upload(announced: PendingUploadRow | None, user_id: str) -> None:
    """Refuse content for a media id, in this order.

    Raises NotFoundError when nobody created it, ForbiddenError when another user did, CannotOverwriteMediaError when it
    has content, NotFoundError when it has expired.
    """
    if announced is None:
        raise NotFoundError("there is no such media id")
    if announced.uploaded_by != user_id:
        raise ForbiddenError("only the user who created the media id may upload to it")
    if announced.state is not MediaState.PENDING:
        raise CannotOverwriteMediaError("the media has been uploaded already")
    if announced.expired:
        raise NotFoundError("the media id has expired")


def check_record(record: MediaRecord | None, *, trashed: bool = False) -> MediaRecord:
    """Return what an admin may see, quarantined or not; `trashed`: in the trash, too. Raises NotFoundError."""
    if record is None or (record.state is MediaState.TRASHED and not trashed):
        raise NotFoundError("Unknown media")
    return record
