"""What the tables of matrix-media-repo say of media."""

import hashlib
from dataclasses import dataclass

from mediarepo.exporters.synapse.changes import Change, Delete, Insert, Value
from mediarepo.model.exports import ExportMedia
from mediarepo.model.media import MediaState

MEDIA, ANNOUNCED = "media", "expiring_media"
_NAMELESS_REMOTE = "download"
_RANDOM_CHARS, _SNOWFLAKE_CHARS = 40, 19
_SUFFIX = "idv2fmt"


@dataclass(frozen=True, slots=True)
class ContentPlace:
    """Where content lies: in which datastore, and at which path of it."""

    datastore_id: str
    location: str


def object_name(media: ExportMedia) -> str:
    """Name content as matrix-media-repo names its own, but by its hash, so that it is found again after a kill."""
    seed = media.sha256 or str(media.mxc).encode()
    digest = hashlib.sha256(b"matrix-media-repo" + seed).hexdigest()
    snowflake = 10 ** (_SNOWFLAKE_CHARS - 1) + int(digest[_RANDOM_CHARS:], 16) % (9 * 10 ** (_SNOWFLAKE_CHARS - 1))
    return f"{digest[:_RANDOM_CHARS]}{snowflake}{_SUFFIX}"


def changes_for(media: ExportMedia, sha256: bytes | None, place: ContentPlace, *, fill: bool) -> list[Change]:
    """Make the rows of media, the media's own first; `fill` says that they were announced there."""
    address: dict[str, Value] = {"origin": media.mxc.server_name, "media_id": media.mxc.media_id}
    if media.state is MediaState.PENDING:
        expires_ts = media.created_ts if media.expires_ts is None else media.expires_ts
        return [Insert(ANNOUNCED, {**address, "user_id": media.uploaded_by or "", "expires_ts": expires_ts})]
    digest = "" if sha256 is None else sha256.hex()
    row: dict[str, Value] = {
        **address,
        "upload_name": media.upload_name or (_NAMELESS_REMOTE if media.remote else ""),
        "content_type": media.content_type,
        "user_id": media.uploaded_by or "",
        "sha256_hash": digest,
        "size_bytes": media.size_bytes or 0,
        "creation_ts": media.created_ts,
        "quarantined": media.quarantined_by is not None,
        "datastore_id": place.datastore_id,
        "location": place.location,
    }
    changes: list[Change] = [Insert(MEDIA, row)]
    if media.protected:
        changes.append(Insert("media_attributes", {**address, "purpose": "pinned"}))
    if media.authenticated:
        condition = {"condition_type": "io.t2bot.requires_authentication", "condition_value": "true"}
        changes.append(Insert("restricted_media", {**address, **condition}))
    if digest:
        last_access_ts = media.created_ts if media.last_access_ts is None else media.last_access_ts
        changes.append(Insert("last_access", {"sha256_hash": digest, "last_access_ts": last_access_ts}))
    return [*changes, Delete(ANNOUNCED, address)] if fill else changes
