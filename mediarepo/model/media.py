"""Media, blobs and thumbnails."""

from dataclasses import dataclass
from enum import StrEnum

from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Lease
from mediarepo.model.usage import Reservation


class ThumbnailMethod(StrEnum):
    """How an image is resized (client-server API, thumbnails)."""

    CROP = "crop"
    SCALE = "scale"


@dataclass(frozen=True, slots=True, order=True)
class ThumbnailSpec:
    """A requested thumbnail; `width` and `height` in pixels, both at least 1."""

    width: int
    height: int
    method: ThumbnailMethod
    animated: bool = False


@dataclass(frozen=True, slots=True)
class RenderedThumbnail:
    """One thumbnail in a render job's output: `size_bytes` bytes from `offset` on.

    `own_bytes` when the unchanged source is the right answer for `spec`; then offset and size are 0. `width` and
    `height` are the thumbnail's, in pixels.
    """

    spec: ThumbnailSpec
    content_type: str
    width: int
    height: int
    offset: int
    size_bytes: int
    own_bytes: bool = False


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The size of a picture in pixels, as it is seen, and its BlurHash."""

    width: int
    height: int
    blurhash: str


@dataclass(frozen=True, slots=True)
class KeptThumbnail:
    """A still thumbnail that is kept, by the box that it was made for."""

    width: int
    height: int
    method: ThumbnailMethod
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFacts:
    """What is known of content: its hash where it is verified, in hexadecimal digits; its picture and thumbnails.

    `has_failed` when it cannot be thumbnailed, or not now.
    """

    sha256: str | None
    picture: PictureFacts | None
    has_failed: bool
    thumbnails: list[KeptThumbnail]


class MediaState(StrEnum):
    """The state of media in their life cycle."""

    PENDING = "pending"
    READY = "ready"
    MISSING = "missing"
    TRASHED = "trashed"
    TOMBSTONE = "tombstone"


class Sha256State(StrEnum):
    """How a blob's hash was obtained."""

    UNKNOWN = "unknown"
    CLAIMED = "claimed"
    VERIFIED = "verified"


class Ownership(StrEnum):
    """Whether a blob's object is ours to delete (`owned`) or belongs to another bucket's owner (`borrowed`)."""

    OWNED = "owned"
    BORROWED = "borrowed"


class StoreClass(StrEnum):
    """What an object is for; the configuration names the store of each class."""

    LOCAL = "local"
    REMOTE = "remote"
    THUMBNAILS = "thumbnails"


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored content and its place; `blob_id` is the database's."""

    blob_id: int
    store: str
    object_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Media:
    """A media row as readers see it; `hidden` is quarantine in any form, looked up with the row.

    `hash_unverified`: the content may be quarantined, as its hash is not verified yet. `import_source_id` is the source
    it was imported from.
    """

    mxc: Mxc
    state: MediaState
    remote: bool
    content_type: str
    upload_name: str | None
    created_ts: int
    revision: int
    authenticated: bool
    hidden: bool
    blob: Blob | None
    hash_unverified: bool = False
    import_source_id: int | None = None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A stored thumbnail: `size_bytes` bytes at `offset` of an object, a pack or the source itself."""

    spec: ThumbnailSpec
    content_type: str
    blob: Blob
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FoundMedia:
    """Media, with the thumbnail that was asked for if it is stored, or why there can be none (`failure`)."""

    media: Media
    thumbnail: Thumbnail | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class PendingMedia:
    """A media id created for content that must arrive by `expires_ts` (ms since 1970)."""

    mxc: Mxc
    expires_ts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMedia:
    """What an upload says of itself, or another server of its media, to be stored beside the content.

    `uploaded_by` is None for remote media. `lease` is the right to fill what exists already: media that were announced
    (created, and pending since), or the one fetch of remote media. `reservation` is room under a quota.
    `preview_expires_ts` is when the image of a preview goes by itself (ms).
    """

    mxc: Mxc
    content_type: str
    upload_name: str | None
    uploaded_by: str | None
    authenticated: bool
    remote: bool = False
    created_ts: int | None = None
    lease: Lease | None = None
    reservation: Reservation | None = None
    preview_expires_ts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """An object in S3 that no row refers to yet; `key_ts` is when its key was made, in ms."""

    store: str
    object_key: str
    key_ts: int
    size_bytes: int
    sha256: bytes | None
    multipart: bool = False
