"""Decides what to do with one row of a source, and which of our stores hold its objects already."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from mediarepo.config.settings import StoreFor
from mediarepo.config.storage import StoreConfig
from mediarepo.errors import InvalidParamError
from mediarepo.importers.readers.source_bucket import BucketAddress
from mediarepo.model.declared import LAST_TS, is_content_type, time_or_none, upload_name_or_none, user_id_or_none
from mediarepo.model.ids import MARKER_NAME, object_key_ts
from mediarepo.model.import_ledger import (
    ImportReason,
    ItemMode,
    ItemState,
    LedgerEntry,
    LedgerState,
    ObjectMode,
    RemoteChoice,
)
from mediarepo.model.import_source import (
    FileBytes,
    MediaKind,
    ObjectBytes,
    Resolution,
    ResolutionState,
    SourceBytes,
    SourceItem,
    SourceMedia,
    UnclaimedBytes,
)
from mediarepo.model.media import StoreClass
from mediarepo.model.mxc import parse_mxc

_PORTS = {"http": 80, "https": 443}


def _server(endpoint_url: str) -> tuple[str, int | None]:
    parts = urlsplit(endpoint_url)
    return (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def _endpoint(address: BucketAddress) -> str:
    return address.endpoint_url or f"https://s3.{address.region or 'us-east-1'}.amazonaws.com"


@dataclass(frozen=True, slots=True)
class DestinationRoute:
    """How an object is imported; `store` is where it is adopted."""

    mode: ItemMode
    store: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStores:
    """Our stores, as destinations of an import."""

    stores: Mapping[str, StoreConfig]
    store_for: StoreFor

    def holding(self, address: BucketAddress) -> str | None:
        """Return the store that is this very bucket; None for objects encrypted with a client's key."""
        if address.customer_key is not None:
            return None
        for name, config in self.stores.items():
            if config.bucket == address.bucket and _server(config.endpoint_url) == _server(_endpoint(address)):
                return name
        return None

    def is_ours(self, address: BucketAddress, object_key: str) -> bool:
        """Return whether an object in a source's bucket was made by us, by its name."""
        return any(
            config.bucket == address.bucket
            and _server(config.endpoint_url) == _server(_endpoint(address))
            and object_key.startswith(f"{config.prefix}/")
            and (object_key_ts(object_key) is not None or object_key == f"{config.prefix}/{MARKER_NAME}")
            for config in self.stores.values()
        )

    def is_near(self, address: BucketAddress, store_class: StoreClass) -> bool:
        """Return whether the store of a class is on the same server, which can then copy by itself."""
        config = self.stores[self.store_for.store_of(store_class)]
        return address.customer_key is None and _server(config.endpoint_url) == _server(_endpoint(address))

    def route(self, address: BucketAddress, mode: ObjectMode, store_class: StoreClass) -> DestinationRoute:
        """Choose how an object of a bucket is imported."""
        store = self.holding(address)
        if store is not None and mode in {ObjectMode.AUTO, ObjectMode.ADOPT}:
            return DestinationRoute(ItemMode.ADOPT, store)
        if mode in {ObjectMode.AUTO, ObjectMode.COPY} and self.is_near(address, store_class):
            return DestinationRoute(ItemMode.COPY)
        return DestinationRoute(ItemMode.STREAM)

    def problems(self, addresses: Mapping[str, BucketAddress], mode: ObjectMode) -> list[str]:
        """Return why objects cannot be imported as configured."""
        found = []
        for byte_source, address in addresses.items():
            where = f"{byte_source}: the bucket {address.bucket} at {_endpoint(address)}"
            if mode is ObjectMode.ADOPT and self.holding(address) is None:
                reason = "is encrypted with a key of its own" if address.customer_key else "is none of our stores"
                found.append(f"{where} {reason}, so its objects cannot be adopted: add it under stores, or choose copy")
            if mode is ObjectMode.COPY and not self.is_near(address, StoreClass.LOCAL):
                found.append(f"{where} is not at the server of our store, which therefore cannot copy: choose stream")
        return found

    def facts(self, addresses: Mapping[str, BucketAddress], mode: ObjectMode) -> list[str]:
        """Describe how the objects of each bucket would be imported."""
        routes = {
            byte_source: self.route(address, mode, StoreClass.LOCAL) for byte_source, address in addresses.items()
        }
        return [
            f"{byte_source}: objects are imported by {route.mode}"
            + (f" in the store {route.store}" if route.store else "")
            for byte_source, route in routes.items()
        ]


def check_media(media: SourceMedia) -> SourceMedia:
    """Return media that can be served; `repaired` names what had to be changed."""
    content_type = media.content_type.strip() if media.content_type is not None else None
    checked = replace(
        media,
        content_type=content_type if content_type and is_content_type(content_type) else None,
        upload_name=upload_name_or_none(media.upload_name),
        user_id=user_id_or_none(media.user_id) if media.is_local else None,
        created_ts=time_or_none(media.created_ts),
        last_access_ts=time_or_none(media.last_access_ts),
        expires_ts=None if media.expires_ts is None else min(max(media.expires_ts, 0), LAST_TS),
    )
    changed = []
    if content_type and checked.content_type is None:
        changed.append("content_type")
    if media.upload_name != checked.upload_name:
        changed.append("upload_name")
    if media.is_local and (media.user_id or None) != checked.user_id:
        changed.append("user_id")
    if media.created_ts and checked.created_ts is None:
        changed.append("created_ts")
    if media.last_access_ts and checked.last_access_ts is None:
        changed.append("last_access_ts")
    return replace(checked, repaired=tuple(dict.fromkeys((*media.repaired, *changed))))


def list_repairs(media: SourceMedia) -> tuple[ImportReason | None, str]:
    """Describe, for the ledger, what had to be changed."""
    if not media.repaired:
        return None, ""
    return ImportReason.REPAIRED, f"could not be kept as it was: {', '.join(media.repaired)}"


_DAY_MS = 86_400_000
_RECENT_MS = 30 * _DAY_MS
_PREVIEW_MS = 2 * _DAY_MS
_GONE_HERE = {"tombstone", "trashed"}

_ENDS = {
    ResolutionState.FOUND: (ItemState.MISSING, ImportReason.NOT_FOUND),
    ResolutionState.MISSING: (ItemState.MISSING, ImportReason.NOT_FOUND),
    ResolutionState.UNSAFE: (ItemState.SKIPPED, ImportReason.UNSAFE),
    ResolutionState.UNREADABLE: (ItemState.FAILED, ImportReason.UNREADABLE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPolicy:
    """What to import from a source; `server_names` are the homeservers it may speak for, empty: any."""

    mode: ObjectMode = ObjectMode.AUTO
    remote: RemoteChoice = RemoteChoice.AUTO
    thumbnails: bool = False
    url_previews: bool = False
    accept_mismatch: bool = False
    server_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnchangedItem:
    """A row that is as the ledger has it."""

    media: SourceMedia
    state: ItemState


@dataclass(frozen=True, slots=True)
class TransferItem:
    """Bytes to be imported, and how."""

    media: SourceMedia
    found: SourceBytes
    route: DestinationRoute
    check_size: bool = True
    preview_expires_ts: int | None = None

    @property
    def store_class(self) -> StoreClass:
        """The class of its object."""
        return StoreClass.LOCAL if self.media.is_local else StoreClass.REMOTE


Verdict = UnchangedItem | LedgerEntry | TransferItem


def describe_place(found: SourceBytes) -> str:
    """Describe where bytes are."""
    if isinstance(found, FileBytes):
        return f"{found.byte_source}: {found.path}"
    if isinstance(found, ObjectBytes):
        return f"{found.byte_source}: s3://{found.bucket}/{found.object_key}"
    return f"{found.byte_source}: {found.path}"


class ImportDecider:
    """Decides by the row, its bytes, and what is known of it."""

    def __init__(
        self,
        policy: ImportPolicy,
        targets: DestinationStores,
        *,
        buckets: Mapping[str, BucketAddress],
        own_server_names: frozenset[str],
        now_ms: Callable[[], int],
    ) -> None:
        self.policy = policy
        self._targets = targets
        self._buckets = buckets
        self._own = own_server_names
        self._now_ms = now_ms

    def judge(self, located: SourceItem, known: LedgerState) -> Verdict:
        """Decide what to do with one row."""
        media = check_media(located.media)
        verdict = self._decide(media, located.resolution, known)
        if isinstance(verdict, TransferItem):
            return verdict
        same = (known.state, known.why, known.fingerprint) == (verdict.state, verdict.why, media.fingerprint)
        return UnchangedItem(media, verdict.state) if same and not known.gone else verdict

    def is_own_copy(self, orphan: UnclaimedBytes) -> bool:
        """Return whether bytes that no row mentions are our copy in the source's own bucket."""
        found = orphan.found
        return isinstance(found, ObjectBytes) and self._targets.is_ours(
            self._buckets[found.byte_source], found.object_key
        )

    def _decide(self, media: SourceMedia, resolution: Resolution, known: LedgerState) -> LedgerEntry | TransferItem:
        settled = (
            self._refused(media, known)
            or _here_already(media, known)
            or _blocked(media)
            or self._unwanted(media, resolution)
        )
        if settled is not None:
            return settled
        match resolution.state:
            case ResolutionState.FOUND if resolution.found is not None:
                return self._found(media, resolution)
            case ResolutionState.PENDING:
                return self._pending(media)
            case ResolutionState.MISMATCH:
                return self._mismatched(media, resolution)
            case ResolutionState.MISSING if media.may_lack_content:
                words = "it is quarantined at the source, and its content was removed there"
                return _entry(media, ItemState.SKIPPED, ImportReason.HIDDEN_REMOVED, words)
            case state:
                return _entry(media, *_ENDS[state], resolution.words)

    def _refused(self, media: SourceMedia, known: LedgerState) -> LedgerEntry | None:
        """Leave out what cannot be media here, or must not be changed here."""
        try:
            parse_mxc(media.server_name, media.media_id)
        except InvalidParamError as exc:
            return _entry(media, ItemState.SKIPPED, ImportReason.NO_MXC, exc.message)
        if media.kind is MediaKind.THUMBNAIL:
            return _entry(media, ItemState.SKIPPED, ImportReason.THUMBNAIL, "it is a thumbnail of other media")
        if known.media_state is not None and not known.is_ours:
            return _entry(media, ItemState.SKIPPED, ImportReason.EXISTS_HERE, "it was uploaded or fetched here")
        if known.media_state in _GONE_HERE:
            return _entry(
                media, ItemState.SKIPPED, ImportReason.DELETED_HERE, "it was deleted here after it was imported"
            )
        if words := self._not_its_own(media):
            return _entry(media, ItemState.SKIPPED, ImportReason.OWN_HOMESERVER, words)
        return None

    def _not_its_own(self, media: SourceMedia) -> str | None:
        """Say why a source is not believed about media of a homeserver of ours."""
        if media.kind is MediaKind.REMOTE:
            return "its homeserver keeps its media here" if media.server_name in self._own else None
        speaks_for = not self.policy.server_names or media.server_name in self.policy.server_names
        return None if speaks_for else "the source does not speak for its homeserver"

    def _unwanted(self, media: SourceMedia, resolution: Resolution) -> LedgerEntry | None:
        if media.kind is MediaKind.URL_CACHE:
            is_image = (media.content_type or "").startswith("image/")
            if not self.policy.url_previews or not is_image:
                return _entry(media, ItemState.SKIPPED, ImportReason.URL_PREVIEW)
            if self._preview_expires_ts(media) <= self._now_ms():
                return _entry(media, ItemState.SKIPPED, ImportReason.PREVIEW_EXPIRED)
        if media.kind is MediaKind.REMOTE and not self._wants_remote(media, resolution):
            return _entry(media, ItemState.SKIPPED, ImportReason.REMOTE_NOT_WANTED, "it can be fetched again")
        return None

    def _wants_remote(self, media: SourceMedia, resolution: Resolution) -> bool:
        match self.policy.remote:
            case RemoteChoice.ALL:
                return True
            case RemoteChoice.NONE:
                return False
            case RemoteChoice.RECENT:
                used_ts = max(media.last_access_ts or 0, media.created_ts or 0)
                return used_ts >= self._now_ms() - _RECENT_MS
            case RemoteChoice.AUTO:
                if self.policy.server_names and not self._own <= set(self.policy.server_names):
                    return False  # neighbours' users would get what only this source says that others' media are
                return bool(self._buckets) and not isinstance(self._best(media, resolution), FileBytes)

    def _found(self, media: SourceMedia, resolution: Resolution) -> LedgerEntry | TransferItem:
        best = self._best(media, resolution)
        if best is None:
            return _entry(media, ItemState.MISSING, ImportReason.NOT_FOUND, resolution.words)
        return self._carry(media, best, check_size=True)

    def _best(self, media: SourceMedia, resolution: Resolution) -> SourceBytes | None:
        """Prefer an object that need not be moved to what must be."""
        fitting = [one for one in resolution.candidates if media.size_bytes in {None, one.size_bytes}]
        for one in fitting:
            if isinstance(one, ObjectBytes) and self._route(media, one).mode is ItemMode.ADOPT:
                return one
        return resolution.found

    def _route(self, media: SourceMedia, found: SourceBytes) -> DestinationRoute:
        if not isinstance(found, ObjectBytes):
            return DestinationRoute(ItemMode.UPLOAD)
        store_class = StoreClass.LOCAL if media.is_local else StoreClass.REMOTE
        return self._targets.route(self._buckets[found.byte_source], self.policy.mode, store_class)

    def _carry(self, media: SourceMedia, found: SourceBytes, *, check_size: bool) -> TransferItem:
        expires_ts = self._preview_expires_ts(media) if media.kind is MediaKind.URL_CACHE else None
        return TransferItem(media, found, self._route(media, found), check_size, expires_ts)

    def _mismatched(self, media: SourceMedia, resolution: Resolution) -> LedgerEntry | TransferItem:
        if self.policy.accept_mismatch and resolution.candidates:
            return self._carry(media, resolution.candidates[0], check_size=False)
        return _entry(media, ItemState.MISMATCHED, ImportReason.SIZE, resolution.words)

    def _pending(self, media: SourceMedia) -> LedgerEntry:
        if media.expires_ts is None or media.expires_ts <= self._now_ms():
            return _entry(media, ItemState.SKIPPED, ImportReason.PENDING_EXPIRED, "its content was never uploaded")
        reason, words = list_repairs(media)
        return LedgerEntry(media=media, state=ItemState.COMMITTED, mode=ItemMode.PENDING, reason=reason, words=words)

    @staticmethod
    def _preview_expires_ts(media: SourceMedia) -> int:
        return (media.created_ts or 0) + _PREVIEW_MS


def _here_already(media: SourceMedia, known: LedgerState) -> LedgerEntry | None:
    """Keep what was imported, whatever becomes of its bytes at the source."""
    if known.is_ours and known.media_state == "ready":
        reason, words = list_repairs(media)
        return LedgerEntry(media=media, state=ItemState.COMMITTED, reason=reason, words=words)
    return None


def _blocked(media: SourceMedia) -> LedgerEntry | None:
    """Keep an address from being served of which the source has nothing else."""
    if not media.block_only:
        return None
    return _entry(
        media, ItemState.SKIPPED, ImportReason.BLOCKED, "its address stays quarantined; the source has no such media"
    )


def _entry(media: SourceMedia, state: ItemState, reason: ImportReason, words: str = "") -> LedgerEntry:
    return LedgerEntry(media=media, state=state, reason=reason, words=words)
