"""Results of content scanners, what waits for them, and what is held until they have spoken.

Who releases media removes the queue's row first and the holds afterwards; who holds media locks the queue's row first.
So no hold is left behind that nothing waits for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mediarepo.db.audit import write_entry
from mediarepo.db.database import NOW_MS, Connection, Database, Row
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES, AdminAction
from mediarepo.model.media import Blob
from mediarepo.model.mxc import Mxc
from mediarepo.model.scans import (
    HELD_REASON,
    KnownResult,
    QueuedScan,
    ScanClass,
    ScannerFigures,
    ScanResult,
    ScanRound,
    ScanSubject,
    Verdict,
    owner_of,
)

STORED_AFTER_MS = 200
"""Content is queued before it is stored, which takes about so long; nobody looks for it sooner."""
_STORED = "b.parent_blob_id IS NULL AND b.missing_ts IS NULL"

_ENQUEUE = f"""INSERT INTO scan_queue AS q
        (scanner, sha256, size_bytes, content_type, scan_class, queued_ts, next_attempt_ts)
    SELECT $1::text, $2::bytea, $3::bigint, $4::text, $5::text, {NOW_MS}, {NOW_MS} + {STORED_AFTER_MS}
    WHERE (SELECT count(*) FROM (SELECT FROM scan_queue WHERE scanner = $1 LIMIT $6) AS waiting) < $6
        OR EXISTS (SELECT FROM scan_queue WHERE scanner = $1 AND sha256 = $2)
    ON CONFLICT (scanner, sha256) DO UPDATE SET queued_ts = EXCLUDED.queued_ts"""

_CLAIM = f"""UPDATE scan_queue SET attempts = attempts + 1, next_attempt_ts = {NOW_MS} + $3::bigint
    WHERE (scanner, sha256) IN (SELECT scanner, sha256 FROM scan_queue
        WHERE scanner = $1 AND next_attempt_ts <= {NOW_MS} ORDER BY next_attempt_ts LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING sha256, size_bytes, content_type, scan_class, attempts, queued_ts"""

_RELEASE = """WITH released AS (
        DELETE FROM scan_hold h WHERE h.scanner = $1 AND {which} RETURNING h.server_name, h.media_id)
    DELETE FROM media_mark k USING released r
    WHERE k.server_name = r.server_name AND k.media_id = r.media_id AND k.kind = 'quarantine' AND k.owner = $2"""

_CLASS_OF = """CASE WHEN m.import_source_id IS NOT NULL THEN 'imports' WHEN m.remote THEN 'remote'
    WHEN m.preview_expires_ts IS NOT NULL THEN 'previews' ELSE 'local' END"""

_PAGE = f"""SELECT b.blob_id, b.store, b.object_key, b.size_bytes, b.sha256,
        b.sha256_state = 'verified' OR b.claim_checked AS sure, m.content_type, {_CLASS_OF} AS scan_class,
        NOT ({_STORED}) OR EXISTS (SELECT FROM scan_result r
            WHERE r.scanner = $1 AND r.sha256 = b.sha256 AND r.signatures = $2) AS done
    FROM (SELECT * FROM blob WHERE blob_id > $3 ORDER BY blob_id LIMIT $4) b
        LEFT JOIN LATERAL (SELECT * FROM media WHERE blob_id = b.blob_id LIMIT 1) m ON true
    WHERE b.created_ts < {NOW_MS} - $5::bigint
    ORDER BY b.blob_id"""

_FIND_LOST = f"""INSERT INTO scan_hold (server_name, media_id, scanner, sha256)
    SELECT k.server_name, k.media_id, $1, b.sha256
    FROM media_mark k JOIN media m USING (server_name, media_id) JOIN blob b ON b.blob_id = m.blob_id
    WHERE k.owner = $2 AND k.owner LIKE 'scanner:%' AND k.kind = 'quarantine' AND k.reason = '{HELD_REASON}'
        AND b.sha256 IS NOT NULL AND NOT EXISTS (SELECT FROM scan_hold h
            WHERE h.server_name = k.server_name AND h.media_id = k.media_id AND h.scanner = $1)
    ON CONFLICT DO NOTHING"""

_QUEUE_HELD = f"""INSERT INTO scan_queue
        (scanner, sha256, size_bytes, content_type, scan_class, queued_ts, next_attempt_ts)
    SELECT DISTINCT ON (h.sha256) $1, h.sha256, b.size_bytes, m.content_type, {_CLASS_OF}, {NOW_MS}, {NOW_MS}
    FROM scan_hold h JOIN media m USING (server_name, media_id) JOIN blob b ON b.blob_id = m.blob_id
    WHERE h.scanner = $1 AND NOT EXISTS (SELECT FROM scan_queue q WHERE q.scanner = $1 AND q.sha256 = h.sha256)
    ON CONFLICT DO NOTHING"""

_FORGET = f"""DELETE FROM scan_result WHERE (scanner, sha256) IN (
    SELECT r.scanner, r.sha256 FROM scan_result r
    WHERE r.scanned_ts < {NOW_MS} - $1::bigint AND NOT EXISTS (SELECT FROM blob b WHERE b.sha256 = r.sha256)
        AND NOT EXISTS (SELECT FROM quarantined_hash q WHERE q.sha256 = r.sha256)
    LIMIT $2)"""


@dataclass(frozen=True, slots=True)
class StoredScan:
    """A stored content as a round meets it; `sha256` None: not known for certain. `done`: scanned already."""

    blob: Blob
    sha256: bytes | None
    content_type: str | None
    scan_class: ScanClass
    done: bool


class ScanTable:
    """Rows of content scanners."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, sha256: bytes, scanners: Sequence[str]) -> dict[str, KnownResult]:
        """Return the last results on a content, by scanner."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT r.*, r.hidden AND NOT EXISTS (SELECT FROM quarantined_hash q
                       WHERE q.sha256 = r.sha256 AND q.owner = 'scanner:' || r.scanner) AS lifted
                   FROM scan_result r WHERE r.sha256 = $1 AND r.scanner = ANY($2::text[])""",
                sha256,
                list(scanners),
            )
        return {row["scanner"]: _known(row) for row in rows}

    async def enqueue(self, scanner: str, subject: ScanSubject, *, limit: int, hold: Mxc | None) -> bool:
        """Let content wait for a scanner, and hide media until it has spoken; False when too much waits already."""
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                _ENQUEUE,
                scanner,
                subject.sha256,
                subject.size_bytes,
                subject.content_type,
                subject.scan_class,
                limit,
            )
            if tag == "INSERT 0 0":
                return False
            if hold is not None:
                await _hold(connection, scanner, subject.sha256, hold)
        return True

    async def claim(self, scanner: str, limit: int, claim_ms: int) -> list[QueuedScan]:
        """Claim contents that are due; those that are not settled become due again after `claim_ms`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_CLAIM, scanner, limit, claim_ms)
        return [_queued(row) for row in rows]

    async def postpone(self, scanner: str, sha256: bytes, delay_ms: int, *, uncounted: int = 0) -> None:
        """Let content become due after a while; so many attempts were none."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE scan_queue SET next_attempt_ts = {NOW_MS} + $3::bigint, attempts = attempts - $4
                    WHERE scanner = $1 AND sha256 = $2""",
                scanner,
                sha256,
                delay_ms,
                uncounted,
            )

    async def settle(self, scanner: str, sha256: bytes, result: ScanResult | None, *, hidden: bool = False) -> None:
        """Record a result, and let go of what waited for it; None: the content does not exist."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM scan_queue WHERE scanner = $1 AND sha256 = $2", scanner, sha256)
            if result is not None:
                await connection.execute(
                    f"""INSERT INTO scan_result (scanner, sha256, verdict, signatures, detail, hidden, scanned_ts)
                        VALUES ($1, $2, $3, $4, $5, $6, {NOW_MS})
                        ON CONFLICT (scanner, sha256) DO UPDATE SET verdict = EXCLUDED.verdict,
                            signatures = EXCLUDED.signatures, detail = EXCLUDED.detail, hidden = EXCLUDED.hidden,
                            scanned_ts = EXCLUDED.scanned_ts""",
                    scanner,
                    sha256,
                    result.verdict,
                    result.signatures,
                    result.detail,
                    hidden,
                )
            await connection.execute(_RELEASE.format(which="h.sha256 = $3"), scanner, owner_of(scanner), sha256)

    async def release_waiting(self, scanner: str, classes: Collection[ScanClass]) -> int:
        """Show held media of some classes, whose content goes on waiting; returns how many."""
        which = """h.sha256 IN (SELECT q.sha256 FROM scan_queue q
            WHERE q.scanner = $1 AND q.scan_class = ANY($3::text[]))"""
        async with self._database.connection() as connection:
            tag = await connection.execute(
                _RELEASE.format(which=which), scanner, owner_of(scanner), [str(one) for one in classes]
            )
        return int(tag.rpartition(" ")[2])

    async def release_all(self, scanner: str, act: AdminAction) -> int:
        """Show everything that a scanner, configured or not, has not spoken about; returns how many media."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM scan_hold WHERE scanner = $1", scanner)
            tag = await connection.execute(
                "DELETE FROM media_mark WHERE owner = $1 AND kind = 'quarantine' AND reason = $2",
                owner_of(scanner),
                HELD_REASON,
            )
            released = int(tag.rpartition(" ")[2])
            await write_entry(connection, act, owner_of(scanner), released)
        return released

    async def forget_results(self, scanner: str, act: AdminAction) -> None:
        """Let all stored content be scanned again; what was found stays hidden until then."""
        async with self._database.transaction() as connection:
            tag = await connection.execute("UPDATE scan_result SET signatures = '' WHERE scanner = $1", scanner)
            await connection.execute("DELETE FROM scan_round WHERE scanner = $1", scanner)
            await write_entry(connection, act, owner_of(scanner), int(tag.rpartition(" ")[2]))

    async def queue_held(self, scanner: str) -> int:
        """Let held content wait again that nothing waits for, as after a rebuild; returns how much."""
        async with self._database.transaction() as connection:
            await connection.execute(_FIND_LOST, scanner, owner_of(scanner))
            tag = await connection.execute(_QUEUE_HELD, scanner)
        return int(tag.rpartition(" ")[2])

    async def content(self, sha256: bytes) -> Blob | None:
        """Return stored content by its hash, or None."""
        row = await self._database.get(
            f"""SELECT b.blob_id, b.store, b.object_key, b.size_bytes FROM blob b
                WHERE b.sha256 = $1 AND (b.sha256_state = 'verified' OR b.claim_checked) AND {_STORED} LIMIT 1""",
            sha256,
        )
        return None if row is None else Blob(*row.values())

    async def last_round(self, scanner: str) -> ScanRound | None:
        """Return how far a scanner's round is, or None before the first."""
        row = await self._database.get(
            "SELECT signatures, after_blob_id, started_ts, finished_ts FROM scan_round WHERE scanner = $1", scanner
        )
        return None if row is None else ScanRound(*row.values())

    async def begin_round(self, scanner: str, signatures: str) -> None:
        """Begin a round over all stored content."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO scan_round (scanner, signatures, after_blob_id, started_ts) VALUES ($1, $2, 0, {NOW_MS})
                    ON CONFLICT (scanner) DO UPDATE SET signatures = EXCLUDED.signatures, after_blob_id = 0,
                        started_ts = EXCLUDED.started_ts, finished_ts = NULL""",
                scanner,
                signatures,
            )

    async def note_round(self, scanner: str, after_blob_id: int, *, finished: bool) -> None:
        """Record how far a round is."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""UPDATE scan_round SET after_blob_id = greatest(after_blob_id, $2),
                        finished_ts = CASE WHEN $3 THEN coalesce(finished_ts, {NOW_MS}) ELSE finished_ts END
                    WHERE scanner = $1""",
                scanner,
                after_blob_id,
                finished,
            )

    async def page(self, scanner: str, scan_round: ScanRound, limit: int, age_ms: int) -> list[StoredScan]:
        """Return the next blobs of a round that are older than `age_ms`; what is not to be scanned is `done`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _PAGE, scanner, scan_round.signatures, scan_round.after_blob_id, limit, age_ms
            )
        return [_stored(row) for row in rows]

    async def figures(self, scanner: str) -> ScannerFigures:
        """Return what is recorded of a scanner."""
        async with self._database.connection() as connection:
            waiting = await connection.fetchval("SELECT count(*) FROM scan_queue WHERE scanner = $1", scanner)
            held = await connection.fetchval("SELECT count(*) FROM scan_hold WHERE scanner = $1", scanner)
            rows = await connection.fetch(
                "SELECT verdict, count(*) FROM scan_result WHERE scanner = $1 GROUP BY verdict ORDER BY verdict",
                scanner,
            )
        return ScannerFigures(
            waiting, held, {row["verdict"]: row["count"] for row in rows}, await self.last_round(scanner)
        )

    async def forget_old(self, age_ms: int, limit: int) -> None:
        """Remove results on content that has been stored nowhere for so long, at most so many."""
        async with self._database.connection() as connection:
            await connection.execute(_FORGET, age_ms, limit)


async def _hold(connection: Connection, scanner: str, sha256: bytes, mxc: Mxc) -> None:
    await connection.execute(
        """INSERT INTO scan_hold (server_name, media_id, scanner, sha256) VALUES ($1, $2, $3, $4)
           ON CONFLICT (server_name, media_id, scanner) DO UPDATE SET sha256 = EXCLUDED.sha256""",
        mxc.server_name,
        mxc.media_id,
        scanner,
        sha256,
    )
    await connection.execute(
        f"""INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
            VALUES ($1, $2, 'quarantine', $3, '', $3, $4, {NOW_MS}) ON CONFLICT DO NOTHING""",
        mxc.server_name,
        mxc.media_id,
        owner_of(scanner),
        HELD_REASON,
    )


def _known(row: Row) -> KnownResult:
    return KnownResult(ScanResult(Verdict(row["verdict"]), row["signatures"], row["detail"]), row["lifted"])


def _queued(row: Row) -> QueuedScan:
    subject = ScanSubject(row["sha256"], row["size_bytes"], row["content_type"], ScanClass(row["scan_class"]))
    return QueuedScan(subject, row["attempts"], row["queued_ts"])


def _stored(row: Row) -> StoredScan:
    return StoredScan(
        blob=Blob(row["blob_id"], row["store"], row["object_key"], row["size_bytes"]),
        sha256=row["sha256"] if row["sure"] else None,
        content_type=row["content_type"],
        scan_class=ScanClass(row["scan_class"]),
        done=row["done"] or row["content_type"] is None or row["size_bytes"] < SMALLEST_HIDDEN_BYTES,
    )
