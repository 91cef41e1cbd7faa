"""Candidates of retention policies, and their deletion."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from mediarepo.db.audit import removal_entries, write_entries, write_entry
from mediarepo.db.database import NOW_MS, Database, Row
from mediarepo.db.deletion import delete_all_if_unreferenced
from mediarepo.db.media_admin import FROM
from mediarepo.db.media_marks import hidden_sql, marked_sql
from mediarepo.model.marks import AdminAction, MarkKind
from mediarepo.model.mxc import Mxc
from mediarepo.model.retention import Candidate, RetentionLimits, RetentionPlan, StoredPlan

_PAGE = 5_000
_USED = "coalesce(a.last_access_ts, m.created_ts)"
_FREE = f"""m.state IN ('ready', 'missing') AND m.preview_expires_ts IS NULL AND NOT {hidden_sql()}
    AND NOT {marked_sql(MarkKind.HOLD)} AND NOT {marked_sql(MarkKind.PIN)} AND NOT {marked_sql(MarkKind.PROTECTION)}"""
_CONDITIONS = f"""{_FREE} AND m.remote = $1
    AND ($2::bigint IS NULL OR m.created_ts < $2) AND ($3::bigint IS NULL OR {_USED} < $3)
    AND (cardinality($4::text[]) = 0 OR m.server_name = ANY($4))
    AND (cardinality($5::text[]) = 0 OR m.uploaded_by LIKE ANY($5))"""
_COLUMNS = f"""m.server_name, m.media_id, m.uploaded_by, m.blob_id, {_USED} AS used_ts,
    coalesce(b.size_bytes, 0) AS size_bytes, CASE WHEN b.ownership = 'owned' AND b.missing_ts IS NULL THEN b.size_bytes
        + (SELECT coalesce(sum(t.size_bytes), 0)::bigint FROM blob t WHERE t.parent_blob_id = b.blob_id)
        ELSE 0 END AS freed_bytes,
    (SELECT count(*) FROM media other WHERE other.blob_id = m.blob_id) AS media_of_blob"""
_THUMBNAILS = """SELECT * FROM (
        SELECT t.blob_id, t.size_bytes, t.created_ts, greatest(t.created_ts,
            (SELECT max(coalesce(a.last_access_ts, m.created_ts)) FROM media m
                LEFT JOIN media_access a ON a.server_name = m.server_name AND a.media_id = m.media_id
             WHERE m.blob_id = t.parent_blob_id)) AS used_ts
        FROM blob t WHERE t.parent_blob_id IS NOT NULL AND t.ownership = 'owned') pack
    WHERE ($1::bigint IS NULL OR created_ts < $1) AND ($2::bigint IS NULL OR used_ts < $2)
        AND (used_ts, blob_id) > ($3, $4)
    ORDER BY used_ts, blob_id LIMIT $5"""


class RetentionTable:
    """Finds candidates, least recently used first, and deletes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def media(self, limits: RetentionLimits, *, remote: bool) -> AsyncIterator[list[Candidate]]:
        """Iterate over candidate media, page by page."""
        after: tuple[object, ...] = (-1, "", "")
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    f"""SELECT {_COLUMNS} {FROM}
                        WHERE {_CONDITIONS} AND ({_USED}, m.server_name, m.media_id) > ($6, $7, $8)
                        ORDER BY {_USED}, m.server_name, m.media_id LIMIT $9""",
                    remote,
                    limits.created_before_ts,
                    limits.idle_since_ts,
                    limits.server_names,
                    limits.user_patterns,
                    *after,
                    _PAGE,
                )
            if not rows:
                return
            after = (rows[-1]["used_ts"], rows[-1]["server_name"], rows[-1]["media_id"])
            yield [_candidate(row) for row in rows]

    async def thumbnails(self, limits: RetentionLimits) -> AsyncIterator[list[Candidate]]:
        """Iterate over candidate thumbnail packs, page by page."""
        after = (-1, -1)
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    _THUMBNAILS, limits.created_before_ts, limits.idle_since_ts, *after, _PAGE
                )
            if not rows:
                return
            after = (rows[-1]["used_ts"], rows[-1]["blob_id"])
            yield [_pack(row) for row in rows]

    async def forget_remote(self, mxcs: Sequence[Mxc], used_before_ts: int, act: AdminAction, target: str) -> int:
        """Delete cached remote media unless they were used since; they are fetched again on request."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""SELECT m.server_name, m.media_id, m.blob_id {FROM}
                    WHERE (m.server_name, m.media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                        AND m.remote AND {_FREE} AND {_USED} <= $3
                    ORDER BY m.server_name, m.media_id FOR UPDATE OF m SKIP LOCKED""",
                [mxc.server_name for mxc in mxcs],
                [mxc.media_id for mxc in mxcs],
                used_before_ts,
            )
            await connection.execute(
                "DELETE FROM media WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                [row["server_name"] for row in rows],
                [row["media_id"] for row in rows],
            )
            await delete_all_if_unreferenced(connection, [row["blob_id"] for row in rows])
            gone = [Mxc(row["server_name"], row["media_id"]) for row in rows]
            await write_entries(connection, act, removal_entries(act, target, gone))
        return len(rows)


def _candidate(row: Row) -> Candidate:
    return Candidate(
        mxc=Mxc(row["server_name"], row["media_id"]),
        blob_id=row["blob_id"],
        uploaded_by=row["uploaded_by"],
        used_ts=row["used_ts"],
        size_bytes=row["size_bytes"],
        freed_bytes=row["freed_bytes"],
        references=row["media_of_blob"],
    )


def _pack(row: Row) -> Candidate:
    size_bytes = row["size_bytes"]
    return Candidate(
        mxc=None,
        blob_id=row["blob_id"],
        uploaded_by=None,
        used_ts=row["used_ts"],
        size_bytes=size_bytes,
        freed_bytes=size_bytes,
        references=0,
    )


_PLAN_COLUMNS = "policy, fingerprint, plan, planned_ts, armed_ts, armed_by"


class RetentionPlans:
    """Stores one plan for each policy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, policy: str, fingerprint: str, plan: RetentionPlan) -> None:
        """Store a plan; a policy that changed since it was armed is disarmed."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO retention_plan (policy, fingerprint, plan, planned_ts) VALUES ($1, $2, $3, {NOW_MS})
                    ON CONFLICT (policy) DO UPDATE SET plan = EXCLUDED.plan, planned_ts = EXCLUDED.planned_ts,
                        fingerprint = EXCLUDED.fingerprint,
                        armed_ts = CASE WHEN retention_plan.fingerprint = EXCLUDED.fingerprint
                            THEN retention_plan.armed_ts END,
                        armed_by = CASE WHEN retention_plan.fingerprint = EXCLUDED.fingerprint
                            THEN retention_plan.armed_by END""",
                policy,
                fingerprint,
                json.dumps(asdict(plan)),
            )

    async def arm(self, policy: str, fingerprint: str, *, armed: bool, plan_age_ms: int, act: AdminAction) -> bool:
        """Arm or disarm a policy; False when there is no recent plan of the policy as it reads."""
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                f"""UPDATE retention_plan SET armed_by = $3, armed_ts = CASE WHEN $3::text IS NOT NULL THEN {NOW_MS} END
                    WHERE policy = $1
                        AND ($3::text IS NULL OR fingerprint = $2 AND planned_ts >= {NOW_MS} - $4::bigint)""",
                policy,
                fingerprint,
                act.by if armed else None,
                plan_age_ms,
            )
            if tag == "UPDATE 1" or not armed:
                await write_entry(connection, act, policy, 0 if armed else int(tag == "UPDATE 1"))
        return bool(tag == "UPDATE 1")

    async def is_planned(self, policy: str, fingerprint: str, plan_age_ms: int) -> bool:
        """Return whether there is a recent plan of the policy as it reads."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                f"""SELECT EXISTS (SELECT FROM retention_plan
                    WHERE policy = $1 AND fingerprint = $2 AND planned_ts >= {NOW_MS} - $3::bigint)""",
                policy,
                fingerprint,
                plan_age_ms,
            )
        return bool(found)

    async def read(self) -> dict[str, StoredPlan]:
        """Return all plans by policy name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"SELECT {_PLAN_COLUMNS} FROM retention_plan")
        return {row["policy"]: _stored(row) for row in rows}


def _stored(row: Row) -> StoredPlan:
    return StoredPlan(
        policy=row["policy"],
        fingerprint=row["fingerprint"],
        plan=RetentionPlan(**json.loads(row["plan"])),
        planned_ts=row["planned_ts"],
        armed_ts=row["armed_ts"],
        armed_by=row["armed_by"],
    )
