"""A Synapse source: database, folders and buckets."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from mediarepo.importers.errors import SourceError
from mediarepo.importers.readers.byte_source import ByteSource
from mediarepo.importers.readers.database_address import open_database
from mediarepo.importers.readers.merge_join import BytePlaces, MergeJoin
from mediarepo.importers.readers.source_base import BaseSource, check_byte_sources, probe_originals, wall_clock_ms
from mediarepo.importers.readers.source_bucket import Bucket, BucketByteSource
from mediarepo.importers.readers.source_database import Database, achain, amap, select
from mediarepo.importers.readers.source_folder import FolderByteSource
from mediarepo.importers.readers.source_postgres import PostgresDatabase
from mediarepo.importers.readers.source_sqlite import SqliteDatabase
from mediarepo.importers.synapse.config import FolderProvider, SynapseConfig
from mediarepo.importers.synapse.paths import bucket_folder, file_path, media_from_path, thumbnail_paths
from mediarepo.importers.synapse.tables import LOCAL, REMOTE, TABLES, Tables
from mediarepo.model.import_source import (
    SAMPLES,
    MediaKind,
    PreflightReport,
    Resolution,
    ResolutionState,
    SourceItem,
    SourceKey,
    SourceMedia,
    SourceThumbnail,
    UnclaimedBytes,
)

_CLOCK_SKEW_MS = 5 * 60 * 1000
_SECONDS_BELOW = 100_000_000_000  # in ms that is 1973, in seconds it is 5138
_CLOCK = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms"
_TOTALS = {"rows": "COUNT(*)", "bytes": "CAST(COALESCE(SUM(media_length), 0) AS BIGINT)"}


async def preflight_synapse(
    config: SynapseConfig, database: Database, tables: Tables, *, now_ms: int
) -> PreflightReport:
    """Check what an import needs; every failure becomes a finding."""
    findings = PreflightReport()
    findings.facts.append(f"the server name is {config.server_name}")
    _read_config(config, findings)
    try:
        await _look_at_database(database, tables, findings)
        if not findings.problems:
            await _count(config, database, tables, findings)
            await _look_at_names(config, database, tables, findings)
            await _look_at_times(database, findings, now_ms=now_ms)
    except SourceError as exc:
        findings.problems.append(str(exc))
    return findings


def _read_config(config: SynapseConfig, findings: PreflightReport) -> None:
    for module in config.unknown_providers:
        findings.warnings.append(f"the storage provider {module} is not supported: media only there will be missing")
    if config.denied_servers:
        names = ", ".join(config.denied_servers)
        findings.warnings.append(f"media of {names} are denied: list them under remote_media.deny_server_names")
    state = "still" if config.media_repo_enabled else "not"
    findings.facts.append(f"Synapse itself does {state} serve media (enable_media_repo)")
    findings.facts.append(f"unused media ids expire after {config.unused_expiration_ms} ms")
    findings.facts.append(f"uploads have at most {config.max_upload_bytes} bytes")
    findings.facts.append(f"URL previews are {'enabled' if config.url_preview_enabled else 'disabled'}")


async def _look_at_database(database: Database, tables: Tables, findings: PreflightReport) -> None:
    for table in TABLES:
        columns = await tables.columns(table)
        if not columns & {"media_id"}:
            findings.problems.append(f"{database.words} has no table {table} that we may read (GRANT SELECT)")
    missing = [name for name in ("sha256", "authenticated") if name not in await tables.columns(LOCAL)]
    if missing:
        findings.facts.append(f"this schema is too old to know {' or '.join(missing)}")
    findings.warnings.extend(database.warnings)
    if "version" in await database.columns("schema_version"):
        rows = await database.rows("SELECT version FROM schema_version")
        findings.facts.extend(f"the schema's version is {row['version']}" for row in rows)


async def _count(config: SynapseConfig, database: Database, tables: Tables, findings: PreflightReport) -> None:
    conditions = {"remote": (REMOTE, "1 = 1")}
    if "url_cache" in await tables.columns(LOCAL):
        conditions["url_cache"] = (LOCAL, "url_cache IS NOT NULL")
        conditions["local"] = (LOCAL, "url_cache IS NULL")
        conditions["pending"] = (LOCAL, "media_length IS NULL AND url_cache IS NULL")
    else:
        conditions["local"] = (LOCAL, "1 = 1")
        conditions["pending"] = (LOCAL, "media_length IS NULL")
    conditions["quarantined"] = (LOCAL, "quarantined_by IS NOT NULL")
    for name, (table, condition) in conditions.items():
        row = (await database.rows(select(table, _TOTALS, condition)))[0]
        findings.counts[name], findings.bytes[name] = int(str(row["rows"])), int(str(row["bytes"]))
    if findings.counts["local"] == findings.counts["remote"] == 0:
        findings.warnings.append(f"{database.words} has no media at all: is it the database of {config.server_name}?")


async def _look_at_names(config: SynapseConfig, database: Database, tables: Tables, findings: PreflightReport) -> None:
    """Compare the server name with those of the users who upload: nothing else in the tables tells it."""
    if "user_id" in await tables.columns(LOCAL):
        condition = "user_id IS NOT NULL AND user_id NOT LIKE '%:' || {0}"
        row = (await database.rows(select(LOCAL, _TOTALS, condition), config.server_name))[0]
        everybody = (await database.rows(select(LOCAL, _TOTALS, "user_id IS NOT NULL")))[0]
        foreign, total = int(str(row["rows"])), int(str(everybody["rows"]))
        if foreign and foreign == total:
            findings.problems.append(f"no uploader belongs to {config.server_name}: the server name must be wrong")
        elif foreign:
            findings.warnings.append(f"{foreign} local media were uploaded by users of other servers")
    own = (await database.rows(select(REMOTE, _TOTALS, "media_origin = {0}"), config.server_name))[0]
    if int(str(own["rows"])):
        findings.warnings.append(f"{own['rows']} rows of other servers' media claim to be of our own and are left out")
    nameless = "typeof({}) <> 'text'" if isinstance(database, SqliteDatabase) else "{} IS NULL"
    for table, columns in ((LOCAL, ("media_id",)), (REMOTE, ("media_origin", "media_id"))):
        condition = " OR ".join(nameless.format(column) for column in columns)
        row = (await database.rows(select(table, _TOTALS, condition)))[0]
        if int(str(row["rows"])):
            findings.warnings.append(
                f"{row['rows']} rows of {table} have no media id, or no server name, and are left out"
            )


async def _look_at_times(database: Database, findings: PreflightReport, *, now_ms: int) -> None:
    if isinstance(database, PostgresDatabase):
        theirs = int(str((await database.rows(_CLOCK))[0]["now_ms"]))
        if abs(theirs - now_ms) > _CLOCK_SKEW_MS:
            findings.warnings.append(f"the database's clock differs from ours by {theirs - now_ms} ms")
    future = select(LOCAL, _TOTALS, f"created_ts > {now_ms + _CLOCK_SKEW_MS}")
    odd = select(LOCAL, _TOTALS, f"created_ts IS NULL OR created_ts < {_SECONDS_BELOW}")
    row = (await database.rows(future))[0]
    if int(str(row["rows"])):
        findings.warnings.append(f"{row['rows']} media were uploaded in the future: compare the machines' clocks")
    row = (await database.rows(odd))[0]
    if int(str(row["rows"])):
        findings.warnings.append(f"{row['rows']} media have no believable time of upload")


_BY_KEY = ("media_origin", "media_id")
_BY_PLACE = ("media_origin || '/'", "COALESCE(filesystem_id, '')", "media_id")
_NO_ROW = Resolution(ResolutionState.MISSING, "quarantined, and there is no such media any more")
_FRESH_MS = 10 * 60 * 1000


class SynapseSource(BaseSource):
    """A Source; `shelves` replaces the configured folders and buckets.

    Rows about Synapse's own media in the table of remote media are left out: Synapse never serves them.
    """

    def __init__(
        self,
        config: SynapseConfig,
        *,
        name: str = "synapse",
        byte_sources: Sequence[ByteSource] | None = None,
        follow_links: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.database = open_database(config.database)
        chosen = byte_sources if byte_sources is not None else make_byte_sources(config, follow_links=follow_links)
        super().__init__(name, self.database, chosen, now_ms=now_ms)
        self.tables = Tables(
            self.database, server_name=config.server_name, unused_expiration_ms=config.unused_expiration_ms
        )

    async def preflight(self, *, tries: int = SAMPLES) -> PreflightReport:
        """Check database, folders and buckets, and look up a few originals."""
        findings = await preflight_synapse(self.config, self.database, self.tables, now_ms=self._now_ms())
        await check_byte_sources(self.byte_sources, findings)
        if findings.usable:
            try:
                await probe_originals(self, self.tables.local(url_cache=False), findings, count=tries)
            except SourceError as exc:
                findings.problems.append(str(exc))
        return findings

    def media(self, after: SourceKey | None = None) -> AsyncGenerator[SourceMedia, None]:
        """Iterate over all media in the order of server names and ids."""
        own = self.config.server_name
        walks: list[AsyncGenerator[SourceMedia, None]] = []
        if after is None or after.order[0] < own.encode():
            walks.append(self._remote("{own} > {name}", after))
        if after is None or after.order[0] <= own.encode():
            walks.append(self.tables.local(after.media_id if after and after.server_name == own else None))
        walks.append(self._remote("{own} < {name}", after))
        return achain(*walks)

    def _remote(self, condition: str, after: SourceKey | None) -> AsyncGenerator[SourceMedia, None]:
        own = self.config.server_name
        name = self.database.dialect.bytewise("media_origin")
        where = condition.format(own="{0}", name=name)
        return self.tables.remote(_BY_KEY, where=where, arguments=(own,), after=after)

    async def lookup(self, server_name: str, media_id: str) -> SourceMedia | None:
        """Read one row as it is now."""
        found = await self.tables.get(server_name, media_id)
        if found is not None:
            return found
        return next(iter(await self.tables.blocks((server_name, media_id))), None)

    def place(self, media: SourceMedia) -> BytePlaces:
        """Return the path of a row's bytes."""
        return file_path(media)

    def thumbnail_paths(self, thumbnail: SourceThumbnail) -> Sequence[str]:
        """Return a thumbnail's path, and the one that old versions used."""
        return thumbnail_paths(thumbnail)

    async def located(self) -> AsyncGenerator[SourceItem | UnclaimedBytes, None]:
        """Iterate over all media and bytes: local ones, those of previews, remote ones, then blocks."""
        started_ts = self._now_ms() - _FRESH_MS
        joining = MergeJoin(self.byte_sources, started_ts=started_ts, is_known=self._is_known)
        remote = self.tables.remote(_BY_PLACE, where="media_origin <> {0}", arguments=(self.config.server_name,))
        for kind, rows in (
            (MediaKind.LOCAL, self.tables.local(url_cache=False)),
            (MediaKind.URL_CACHE, self.tables.local(url_cache=True)),
            (MediaKind.REMOTE, remote),
        ):
            async with aclosing(joining.join(amap(rows, file_path), bucket_folder(kind))) as meetings:
                async for met in meetings:
                    yield met
        for block in await self.tables.blocks():
            yield SourceItem(block, _NO_ROW)

    async def _is_known(self, path: str) -> bool:
        found = media_from_path(path)
        if found is None:
            return False
        kind, server_name, name = found
        if kind is MediaKind.REMOTE:
            return await self.tables.has_file(server_name, name)
        return await self.tables.get(self.config.server_name, name) is not None

    async def thumbnails(self, media: SourceMedia) -> AsyncGenerator[SourceThumbnail, None]:
        """Iterate over the thumbnails of one piece of media."""
        for thumbnail in await self.tables.thumbnails(media):
            yield thumbnail


def make_byte_sources(config: SynapseConfig, *, follow_links: bool = False) -> list[ByteSource]:
    """Return the configured folders and buckets, in the order in which Synapse searches them."""
    byte_sources: list[ByteSource] = [
        FolderByteSource("media_store", config.media_store_path, follow_links=follow_links)
    ]
    for number, provider in enumerate(config.providers, 1):
        name = f"provider {number}"
        if isinstance(provider, FolderProvider):
            byte_sources.append(FolderByteSource(name, provider.folder, follow_links=follow_links))
        else:
            byte_sources.append(BucketByteSource(name, Bucket(provider.address), prefix=provider.prefix))
    return byte_sources
