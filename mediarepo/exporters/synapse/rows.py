"""What Synapse's tables say of media."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from mediarepo.exporters.synapse.changes import Change, Fill, Insert, Value
from mediarepo.importers.synapse.rows import LOCAL, LOCAL_THUMBNAILS, REMOTE, REMOTE_THUMBNAILS
from mediarepo.model.exports import ExportMedia
from mediarepo.model.imports import MediaKind, SourceMedia
from mediarepo.model.media import MediaState

TOO_LONG = 2**31
"""Lengths are 32-bit integers in Synapse's tables."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FILESYSTEM_ID_CHARS = 24
_THUMBNAIL_TYPES = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/webp": "image/jpeg",
    "image/gif": "image/png",
    "image/png": "image/png",
}
_THUMBNAILS = ((32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (641, 481, "scale"), (803, 601, "scale"))
"""Thumbnails that Synapse shall make when they are asked for.

It makes anew those of which it has a row and no file. Their length is not known before, and Synapse cannot compare a
thumbnail of known length with one of unknown length; it does so only when both are equally near to the size asked for.
Hence sizes of which no two are equally near to what clients ask for.
"""


def source_media(media: ExportMedia) -> SourceMedia:
    """Describe media as Synapse would have them; files of other servers' media have a name that their mxc decides."""
    kind = MediaKind.REMOTE if media.remote else MediaKind.LOCAL
    described = SourceMedia(server_name=media.mxc.server_name, media_id=media.mxc.media_id, kind=kind)
    return replace(described, filesystem_id=_filesystem_id(media)) if media.remote else described


def _filesystem_id(media: ExportMedia) -> str:
    digest = hashlib.sha256(str(media.mxc).encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_FILESYSTEM_ID_CHARS])


def changes_for(
    media: ExportMedia, sha256: bytes | None, columns: Mapping[str, frozenset[str]], *, fill: bool
) -> list[Change]:
    """Make the rows of media, the media's own first; columns that a schema does not have are left out."""
    table = REMOTE if media.remote else LOCAL
    values = {name: value for name, value in _values(media, sha256).items() if name in columns[table]}
    if fill:
        kept = ("media_type", "media_length", "upload_name", "quarantined_by", "safe_from_quarantine", "sha256")
        filled = {name: value for name, value in values.items() if name in kept}
        first: Change = Fill(table, filled, media.mxc.media_id)
    else:
        first = Insert(table, values)
    return [first, *_thumbnails(media, columns)]


def _values(media: ExportMedia, sha256: bytes | None) -> dict[str, Value]:
    pending = media.state is MediaState.PENDING
    shared: dict[str, Value] = {
        "media_id": media.mxc.media_id,
        "media_type": None if pending else media.content_type,
        "media_length": None if pending else media.size_bytes or 0,
        "created_ts": media.created_ts,
        "upload_name": media.upload_name,
        "quarantined_by": media.quarantined_by,
        "authenticated": media.authenticated,
        "sha256": None if sha256 is None else sha256.hex(),
    }
    if media.remote:
        last_access_ts = media.created_ts if media.last_access_ts is None else media.last_access_ts
        place: dict[str, Value] = {"media_origin": media.mxc.server_name, "filesystem_id": _filesystem_id(media)}
        return {**place, **shared, "last_access_ts": last_access_ts}
    own: dict[str, Value] = {"user_id": media.uploaded_by, "safe_from_quarantine": media.protected}
    return {**shared, **own, "last_access_ts": media.last_access_ts}


def _thumbnails(media: ExportMedia, columns: Mapping[str, frozenset[str]]) -> list[Insert]:
    content_type = _THUMBNAIL_TYPES.get(media.content_type.partition(";")[0].strip().lower())
    if content_type is None or media.state is not MediaState.READY or not media.size_bytes:
        return []
    table = REMOTE_THUMBNAILS if media.remote else LOCAL_THUMBNAILS
    of: dict[str, Value] = {"media_id": media.mxc.media_id}
    if media.remote:
        of = {"media_origin": media.mxc.server_name, **of, "filesystem_id": _filesystem_id(media)}
    rows = [
        {
            **of,
            "thumbnail_width": width,
            "thumbnail_height": height,
            "thumbnail_type": content_type,
            "thumbnail_method": method,
        }
        for width, height, method in _THUMBNAILS
    ]
    return [Insert(table, {name: value for name, value in row.items() if name in columns[table]}) for row in rows]
