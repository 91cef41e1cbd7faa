"""Synapse's file layout, which is also its S3 key layout."""

import re

from mediarepo.importers.readers.merge_join import BytePlaces
from mediarepo.model.import_source import MediaKind, SourceMedia, SourceThumbnail

_SERVABLE = re.compile(r"[A-Za-z0-9_\-.\[\]:]+", re.ASCII)
_ORDERLY = re.compile(r"[\x21-\x2e\x30-\x7e]+", re.ASCII)
_DATED = re.compile(r"\d\d\d\d-\d\d-\d\d.")
_MIN_CHARS = 5
_FOLDERS = {MediaKind.LOCAL: "local_content/", MediaKind.REMOTE: "remote_content/", MediaKind.URL_CACHE: "url_cache/"}
_THUMBNAIL_FOLDERS = {
    MediaKind.LOCAL: "local_thumbnails/",
    MediaKind.REMOTE: "remote_thumbnail/",
    MediaKind.URL_CACHE: "url_cache_thumbnails/",
}


def bucket_folder(kind: MediaKind) -> str:
    """Return the folder of originals of one kind, with its slash."""
    return _FOLDERS[kind]


def file_path(media: SourceMedia) -> BytePlaces:
    """Return the path of a row's bytes, and what is wrong with its id.

    Ids with odd characters still have their place in the order of files; Synapse does not serve them, so neither do we.
    """
    name = media.filesystem_id if media.kind is MediaKind.REMOTE else media.media_id
    complaint = _complaint(name, "filesystem id" if media.kind is MediaKind.REMOTE else "media id")
    if media.kind is MediaKind.REMOTE:
        complaint = complaint or _complaint_about_server(media.server_name)
    if name is None or len(name) < _MIN_CHARS or not _ORDERLY.fullmatch(name):
        return BytePlaces(media, None, complaint)
    if media.kind is MediaKind.REMOTE and not _ORDERLY.fullmatch(media.server_name):
        return BytePlaces(media, None, complaint)
    shards = _shards(name, media.kind)
    server = f"{media.server_name}/" if media.kind is MediaKind.REMOTE else ""
    if {"..", "."} & set(f"{server}{shards}".split("/")):
        return BytePlaces(media, None, complaint or f"{name!r} leads out of its folder")
    return BytePlaces(media, f"{_FOLDERS[media.kind]}{server}{shards}", complaint)


def _complaint(name: str | None, what: str) -> str | None:
    if not name:
        return f"there is no {what}"
    if len(name) < _MIN_CHARS:
        return f"the {what} {name!r} is too short to name a file"
    if not _SERVABLE.fullmatch(name):
        return f"the {what} {name!r} has characters that Synapse itself refuses"
    if {"..", "."} & set(_shards(name, MediaKind.LOCAL).split("/")):
        return f"the {what} {name!r} leads out of its folder"
    return None


def _complaint_about_server(server_name: str) -> str | None:
    if _SERVABLE.fullmatch(server_name) and server_name not in {".", ".."}:
        return None
    return f"the server name {server_name!r} has characters that Synapse itself refuses"


def _shards(name: str, kind: MediaKind) -> str:
    if kind is MediaKind.URL_CACHE and _DATED.match(name):
        return f"{name[:10]}/{name[11:]}"
    return f"{name[:2]}/{name[2:4]}/{name[4:]}"


def thumbnail_paths(thumbnail: SourceThumbnail) -> list[str]:
    """Return the possible paths of a thumbnail: old ones of remote media have no method in their name."""
    remote = thumbnail.kind is MediaKind.REMOTE
    original = SourceMedia(
        server_name=thumbnail.server_name,
        media_id=thumbnail.media_id,
        kind=thumbnail.kind,
        filesystem_id=thumbnail.filesystem_id,
    )
    placed = file_path(original)
    top, slash, sub = thumbnail.content_type.partition("/")
    parts = (top, sub, thumbnail.method)
    if placed.path is None or placed.complaint or not slash or not all(_SERVABLE.fullmatch(part) for part in parts):
        return []
    folder = _THUMBNAIL_FOLDERS[thumbnail.kind] + placed.path.removeprefix(_FOLDERS[thumbnail.kind])
    old = f"{folder}/{thumbnail.width}-{thumbnail.height}-{top}-{sub}"
    return [f"{old}-{thumbnail.method}", old] if remote else [f"{old}-{thumbnail.method}"]


def media_from_path(path: str) -> tuple[MediaKind, str, str] | None:
    """Parse the path of an original: kind, server name (empty for local media) and file id."""
    for kind, folder in _FOLDERS.items():
        if path.startswith(folder):
            parts = path.removeprefix(folder).split("/")
            server = parts.pop(0) if kind is MediaKind.REMOTE else ""
            dated = kind is MediaKind.URL_CACHE and len(parts) == 2  # noqa: PLR2004 - a date and a name
            return kind, server, ("_" if dated else "").join(parts)
    return None
