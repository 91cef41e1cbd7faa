"""A Synapse that is read over HTTP only, through its admin API."""

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol, Self
from urllib.parse import quote

from mediarepo.importers.errors import BytesVanishedError, SourceError, SourceUnavailableError
from mediarepo.importers.readers.source_bucket import BucketAddress
from mediarepo.importers.synapse.tables import ALL_COLUMNS, local_media, remote_media
from mediarepo.model.import_source import (
    SAMPLES,
    DownloadBytes,
    MediaKind,
    PreflightReport,
    Resolution,
    ResolutionState,
    SourceBytes,
    SourceItem,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)

_PAGE = "500"
_OK, _FORBIDDEN, _NOT_FOUND = 200, (401, 403), 404
_PREVIEW = re.compile(r"\d\d\d\d-\d\d-\d\d_")
_DAY_MS = 86_400_000
_SHELF = "http"
_CHANGES = "/_synapse/admin/v1/media/quarantine_changes"
_NOT_SEEN = Resolution(ResolutionState.MISSING, "quarantined, and no row of it can be seen")


class HttpGetter(Protocol):
    """Sends requests to the homeserver with an admin's token; waits when told to (429).

    Raises SourceUnavailableError when there is no answer. Parameters are passed unencoded, paths encoded.
    """

    async def close(self) -> None:
        """Close connections."""
        ...

    async def get_json(self, path: str, parameters: Mapping[str, str]) -> tuple[int, object]:
        """Return the status and the JSON body, None when it is not JSON."""
        ...

    def get_bytes(self, path: str, parameters: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Read a body in pieces. Raises BytesVanishedError at 404, SourceError at any status but 200."""
        ...


class HostedSynapseSource:
    """A Source of local media only; holds every row in memory, since media are listed user by user."""

    def __init__(
        self, getter: HttpGetter, server_name: str, *, name: str = "synapse-http", unused_expiration_ms: int = _DAY_MS
    ) -> None:
        self.name = name
        self._getter = getter
        self._server_name = server_name
        self._unused_expiration_ms = unused_expiration_ms

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._getter.close()

    @property
    def lists(self) -> int:
        """Always 0: no bucket is read."""
        return 0

    @property
    def notes(self) -> list[str]:
        """Always empty."""
        return []

    @property
    def bucket_addresses(self) -> dict[str, BucketAddress]:
        """Always empty."""
        return {}

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:  # noqa: ARG002 - nothing can be tried
        """Check that the token is an admin's, and list the server's media."""
        findings = PreflightReport(facts=["other servers' media, thumbnails and orphans cannot be seen by HTTP"])
        try:
            first = await self._ask("/_synapse/admin/v2/users", {"from": "0", "limit": "1", "deactivated": "true"})
            findings.counts["users"] = _number(first.get("total"))
            users = _entries(first, "users")
            if users and not str(users[0].get("name")).endswith(f":{self._server_name}"):
                findings.problems.append(f"the users are not of {self._server_name}: the server name must be wrong")
            path = "/_synapse/admin/v1/statistics/users/media"
            counted = [user async for user in self._pages(path, "users", {})]
            findings.counts["local"] = sum(_number(user.get("media_count")) for user in counted)
            findings.bytes["local"] = sum(_number(user.get("media_length")) for user in counted)
        except SourceError as exc:
            findings.problems.append(str(exc))
        return findings

    async def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of their ids."""
        found = {media.media_id: media async for media in self._of_everybody()}
        for media in sorted(found.values(), key=lambda one: one.key.order):
            if after is None or media.key.order > after.order:
                yield media

    async def _of_everybody(self) -> AsyncGenerator[SourceMedia, None]:
        parameters = {"deactivated": "true", "guests": "true"}
        async for user in self._pages("/_synapse/admin/v2/users", "users", parameters):
            path = f"/_synapse/admin/v1/users/{quote(str(user.get('name')), safe='')}/media"
            async for entry in self._pages(path, "media", {"order_by": "media_id"}):
                yield self._media({"user_id": user.get("name"), **entry})

    async def _pages(
        self, path: str, name: str, parameters: Mapping[str, str]
    ) -> AsyncGenerator[Mapping[str, object], None]:
        start = "0"
        while True:
            page = await self._ask(path, {**parameters, "from": start, "limit": _PAGE})
            for entry in _entries(page, name):
                yield entry
            following = page.get("next_token")
            if following is None or str(following) == start:
                return
            start = str(following)

    async def _ask(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, object]:
        status, body = await self._getter.get_json(path, parameters)
        if status in _FORBIDDEN:
            raise SourceError("the homeserver refuses: the token is not an admin's, or not valid any more")
        if status != _OK or not isinstance(body, Mapping):
            raise SourceUnavailableError(f"the homeserver answered {status} to {path}")
        return body

    def _media(self, entry: Mapping[str, object]) -> SourceMedia:
        row = {**dict.fromkeys(ALL_COLUMNS), **entry}
        media_id = str(row["media_id"])
        if row["url_cache"] is None and _PREVIEW.match(media_id):
            row["url_cache"] = media_id  # lists of users' media do not say which address it came from
        if row["media_origin"] not in {None, self._server_name}:
            return remote_media(row)
        return local_media(
            row, media_id, server_name=self._server_name, unused_expiration_ms=self._unused_expiration_ms
        )

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now; by listing all of them where Synapse is too old for that.

        Raises SourceError when the homeserver refuses the token.
        """
        path = f"/_synapse/admin/v1/media/{quote(server_name, safe='')}/{quote(media_id, safe='')}"
        status, body = await self._getter.get_json(path, {})
        if status == _OK and isinstance(body, Mapping) and isinstance(body.get("media_info"), Mapping):
            return self._media(body["media_info"])
        if status == _NOT_FOUND and isinstance(body, Mapping) and body.get("errcode") == "M_NOT_FOUND":
            return None
        if status in _FORBIDDEN:
            raise SourceError("the homeserver refuses: the token is not an admin's, or not valid any more")
        wanted = SourceKey(server_name, media_id)
        return next((media for media in [one async for one in self._of_everybody()] if media.key == wanted), None)

    async def locate(self, media: SourceMedia) -> Resolution:
        """Return the download path of the bytes; only the download shows whether they exist."""
        if media.pending:
            return Resolution(ResolutionState.PENDING, "reserved, its content has not been uploaded")
        address = f"{quote(media.server_name, safe='')}/{quote(media.media_id, safe='')}"
        if media.media_id in {".", ".."} or not media.media_id:
            return Resolution(ResolutionState.UNSAFE, f"{media.media_id!r} is no part of a path")
        found = DownloadBytes(_SHELF, f"/_matrix/client/v1/media/download/{address}", media.size_bytes or 0)
        return Resolution(ResolutionState.FOUND, "to be downloaded", found, (found,))

    async def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media, then blocks; unclaimed bytes cannot be seen."""
        seen = set[str]()
        async for media in self.media():
            seen.add(media.media_id)
            yield SourceItem(media, await self.locate(media))
        for block in await self._blocks():
            if block.kind is MediaKind.REMOTE or block.media_id not in seen:
                yield SourceItem(block, _NOT_SEEN)

    async def _blocks(self) -> list[SourceMedia]:
        """List addresses that were quarantined last, other servers' too, whose rows cannot be seen (Synapse 1.152)."""
        hidden: dict[tuple[str, str], bool] = {}
        start = "0"
        while True:
            status, body = await self._getter.get_json(_CHANGES, {"from": start})
            if status != _OK or not isinstance(body, Mapping):
                break  # an older Synapse, which keeps no such list
            changes, following = _entries(body, "changes"), str(body.get("next_batch"))
            for change in changes:
                origin, media_id = change.get("origin") or self._server_name, change.get("media_id")
                hidden[str(origin), str(media_id)] = change.get("quarantined") is True
            if not changes or following == start:
                break
            start = following
        return [self._block(*address) for address, quarantined in hidden.items() if quarantined]

    def _block(self, server_name: str, media_id: str) -> SourceMedia:
        return SourceMedia(
            server_name=server_name,
            media_id=media_id,
            kind=MediaKind.LOCAL if server_name == self._server_name else MediaKind.REMOTE,
            quarantined_by="synapse",
            block_only=True,
        )

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Yield nothing: the admin API does not list thumbnails."""
        for thumbnail in _no_thumbnails(media):
            yield thumbnail

    async def all_thumbnails(self) -> AsyncGenerator[SourceThumbnail, None]:
        """Yield nothing, as above."""
        for thumbnail in _no_thumbnails():
            yield thumbnail

    async def locate_thumbnail(self, thumbnail: SourceThumbnail) -> Resolution:
        """Return that there is none."""
        return Resolution(ResolutionState.MISSING, f"thumbnails of {thumbnail.media_id} cannot be had by HTTP")

    async def read(self, found: SourceBytes) -> bytes:
        """Download the bytes at once."""
        return b"".join([piece async for piece in self.open(found)])

    async def open(self, found: SourceBytes) -> AsyncGenerator[bytes, None]:
        """Download the bytes, quarantined or not.

        Raises BytesVanishedError when there are fewer than listed, SourceError for a wrong kind.
        """
        if not isinstance(found, DownloadBytes):
            raise SourceError(f"{found} is not downloaded")
        read = 0
        async for piece in self._getter.get_bytes(found.path, {"admin_unsafely_bypass_quarantine": "true"}):
            read += len(piece)
            yield piece
        if read != found.size_bytes:
            raise BytesVanishedError(f"{found.path} should have {found.size_bytes} bytes, and {read} came")


def _no_thumbnails(*_of: SourceMedia) -> tuple[SourceThumbnail, ...]:
    return ()


def _entries(page: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    listed = page.get(name)
    if not isinstance(listed, list):
        raise SourceError(f"the homeserver's list of {name} is not one")
    return [entry for entry in listed if isinstance(entry, Mapping)]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
