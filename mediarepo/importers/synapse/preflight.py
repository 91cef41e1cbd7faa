"""A first look at a Synapse: would an import work, and how much is there."""

from mediarepo.importers.errors import SourceError
from mediarepo.importers.reading.databases import Database, select
from mediarepo.importers.reading.postgres import PostgresDatabase
from mediarepo.importers.reading.sqlite import SqliteDatabase
from mediarepo.importers.synapse.config import SynapseConfig
from mediarepo.importers.synapse.rows import LOCAL, REMOTE, TABLES, Tables
from mediarepo.model.imports import Findings

_CLOCK_SKEW_MS = 5 * 60 * 1000
_SECONDS_BELOW = 100_000_000_000  # in ms that is 1973, in seconds it is 5138
_CLOCK = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms"
_TOTALS = {"rows": "COUNT(*)", "bytes": "CAST(COALESCE(SUM(media_length), 0) AS BIGINT)"}


async def look_at(config: SynapseConfig, database: Database, tables: Tables, *, now_ms: int) -> Findings:
    """Find out what an import would meet; whatever fails becomes words."""
    findings = Findings()
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


def _read_config(config: SynapseConfig, findings: Findings) -> None:
    for module in config.unknown_providers:
        findings.warnings.append(f"the storage provider {module} is not known: what lies only there will be missing")
    if config.denied_servers:
        names = ", ".join(config.denied_servers)
        findings.warnings.append(f"media of {names} are denied: list them under remote_media.deny_server_names")
    state = "still" if config.media_repo_enabled else "not"
    findings.facts.append(f"Synapse itself does {state} serve media (enable_media_repo)")
    findings.facts.append(f"unused media ids expire after {config.unused_expiration_ms} ms")
    findings.facts.append(f"uploads have at most {config.max_upload_bytes} bytes")
    findings.facts.append(f"URL previews are {'enabled' if config.url_preview_enabled else 'disabled'}")


async def _look_at_database(database: Database, tables: Tables, findings: Findings) -> None:
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


async def _count(config: SynapseConfig, database: Database, tables: Tables, findings: Findings) -> None:
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


async def _look_at_names(config: SynapseConfig, database: Database, tables: Tables, findings: Findings) -> None:
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


async def _look_at_times(database: Database, findings: Findings, *, now_ms: int) -> None:
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
