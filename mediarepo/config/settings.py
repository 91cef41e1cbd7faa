"""The whole configuration file."""

from itertools import combinations
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from mediarepo.config.admin import AdminConfig, ConsoleConfig, QuarantineConfig
from mediarepo.config.base import Section
from mediarepo.config.cleanup import JournalConfig, LastAccessConfig, RetentionConfig, StorageMovesConfig, SweepConfig
from mediarepo.config.downloads import DownloadsConfig
from mediarepo.config.federation import FederationConfig, OutboundConfig, RemoteMediaConfig
from mediarepo.config.homeservers import HomeserverConfig, IdentityConfig, ImportConfig
from mediarepo.config.limits import QuotasConfig, RateLimitsConfig
from mediarepo.config.media import MAX_PARTS, ThumbnailsConfig, UploadsConfig
from mediarepo.config.previews import PreviewsConfig
from mediarepo.config.scanners import ScannerConfig
from mediarepo.config.server import ListenConfig, LogConfig, SandboxConfig
from mediarepo.config.storage import DatabaseConfig, StoreConfig
from mediarepo.model.media import StoreClass


class StoreFor(Section):
    """Which store takes new media, by what they are."""

    local: str = "main"
    """Media that users here upload."""
    remote: str = "main"
    """Media of other servers."""
    thumbnails: str = "main"
    """Thumbnails of both."""

    def store_of(self, store_class: StoreClass) -> str:
        """Return the name of the store for new objects of a class."""
        return {
            StoreClass.LOCAL: self.local,
            StoreClass.REMOTE: self.remote,
            StoreClass.THUMBNAILS: self.thumbnails,
        }[store_class]


ScannerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
"""What a scanner may be called: it is part of rows, metrics and log lines."""


class Settings(Section):
    """Everything an operator can choose; `config.yaml` shows it all."""

    reloadable = frozenset({"homeservers"})

    listen: ListenConfig = ListenConfig()
    """Where the server listens."""
    database: DatabaseConfig
    """The Postgres database."""
    homeservers: list[HomeserverConfig] = Field(min_length=1)
    """The homeservers that share this repository."""
    stores: dict[str, StoreConfig] = Field(min_length=1)
    """The S3 buckets, by a name of your choice."""
    store_for: StoreFor = StoreFor()
    """The store of each class of media."""
    identity: IdentityConfig = IdentityConfig()
    """How access tokens are validated."""
    uploads: UploadsConfig = UploadsConfig()
    """Limits of uploads."""
    quotas: QuotasConfig = QuotasConfig()
    """How much users may store."""
    rate_limits: RateLimitsConfig = RateLimitsConfig()
    """Limits of requests and bytes per second; all processes count together."""
    downloads: DownloadsConfig = DownloadsConfig()
    """Limits of downloads."""
    admin: AdminConfig = AdminConfig()
    """Admins, and the trash."""
    console: ConsoleConfig = ConsoleConfig()
    """The admin console, a page for browsers."""
    quarantine: QuarantineConfig = QuarantineConfig()
    """Which homeservers share their quarantine."""
    scanners: dict[ScannerName, ScannerConfig] = {}
    """Content scanners, by a name of your choice."""
    federation: FederationConfig = FederationConfig()
    """Requests of other servers."""
    outbound: OutboundConfig = OutboundConfig()
    """Outbound connections, with the SSRF guard."""
    remote_media: RemoteMediaConfig = RemoteMediaConfig()
    """Media of other servers."""
    previews: PreviewsConfig = PreviewsConfig()
    """Previews of web pages."""
    thumbnails: ThumbnailsConfig = ThumbnailsConfig()
    """Sizes and limits of thumbnails."""
    sandbox: SandboxConfig = SandboxConfig()
    """The sandbox of the processes that read pictures and web pages."""
    access_times: LastAccessConfig = LastAccessConfig()
    """Last-access times of media."""
    sweep: SweepConfig = SweepConfig()
    """Garbage collection: deletes what crashes left in the buckets."""
    journal: JournalConfig = JournalConfig()
    """What is written beside the objects, so that the bucket alone is enough (`mediarepo rebuild`)."""
    retention: RetentionConfig = RetentionConfig()
    """Retention policies; none deletes anything before it is planned, and run or armed (`mediarepo retention`)."""
    storage_moves: StorageMovesConfig = StorageMovesConfig()
    """Policies that move objects to other stores (`mediarepo stores`)."""
    imports: dict[str, ImportConfig] = {}
    """Other media repositories that media are imported from, by a name of your choice (`mediarepo import NAME`)."""
    log: LogConfig = LogConfig()
    """Logging."""

    @model_validator(mode="after")
    def _stores_exist(self) -> Self:
        for store_class in StoreClass:
            name = self.store_for.store_of(store_class)
            if name not in self.stores:
                raise ValueError(f"store_for.{store_class}: there is no store named {name!r} under stores")
            if self.stores[name].read_only:
                raise ValueError(f"store_for.{store_class}: the store {name!r} is read_only")
        return self

    @model_validator(mode="after")
    def _stores_are_apart(self) -> Self:
        """Refuse stores that share objects: the garbage collection of one would delete those of the other."""
        for (name, store), (other_name, other) in combinations(self.stores.items(), 2):
            if (store.endpoint_url, store.bucket) != (other.endpoint_url, other.bucket):
                continue
            if f"{store.prefix}/".startswith(f"{other.prefix}/") or f"{other.prefix}/".startswith(f"{store.prefix}/"):
                raise ValueError(
                    f"stores: {name} and {other_name} are one bucket, and the prefixes {store.prefix!r} and "
                    f"{other.prefix!r} overlap: give each a prefix outside of the other's, or use one store"
                )
        return self

    @model_validator(mode="after")
    def _stores_of_moves_exist(self) -> Self:
        for policy in self.storage_moves.policies:
            for name in (policy.from_store, policy.to_store):
                if name not in self.stores:
                    raise ValueError(
                        f"storage_moves.policies.{policy.name}: there is no store named {name!r} under stores"
                    )
            if self.stores[policy.to_store].read_only:
                raise ValueError(f"storage_moves.policies.{policy.name}: the store {policy.to_store!r} is read_only")
        return self

    @model_validator(mode="after")
    def _sharers_of_quarantine_exist(self) -> Self:
        ours = {homeserver.server_name for homeserver in self.homeservers}
        for server_name in {name for group in self.quarantine.shared for name in group} - ours:
            raise ValueError(f"quarantine.shared: {server_name!r} is none of the homeservers")
        return self

    @model_validator(mode="after")
    def _remote_media_have_few_enough_parts(self) -> Self:
        most_bytes = MAX_PARTS * self.uploads.part_bytes
        if self.remote_media.max_bytes > most_bytes:
            raise ValueError(f"remote_media.max_bytes: at most {most_bytes} with this uploads.part_bytes")
        return self

    @model_validator(mode="after")
    def _hosts_are_told_apart(self) -> Self:
        owner: dict[str, str] = {}
        for homeserver in self.homeservers:
            for host in {homeserver.server_name.lower(), *homeserver.hosts}:
                if host in owner:
                    raise ValueError(f"homeservers: the host {host!r} belongs to two of them")
                owner[host] = homeserver.server_name
        return self
