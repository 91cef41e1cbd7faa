"""Retention's plans: what was counted before anything went, and what was armed since."""

import json
from dataclasses import asdict

from mediarepo.db.audit import write_entry
from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Database, Row
from mediarepo.model.marks import AdminAction
from mediarepo.model.retention import RetentionPlan, StoredPlan

_COLUMNS = "policy, fingerprint, plan, planned_ts, armed_ts, armed_by"


class RetentionPlans:
    """Keeps one plan for each policy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, policy: str, fingerprint: str, plan: RetentionPlan) -> None:
        """Keep a plan; a policy that reads otherwise than when it was armed is armed no longer."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"""INSERT INTO retention_plan (policy, fingerprint, plan, planned_ts) VALUES ($1, $2, $3, {NOW_MS})
                    ON CONFLICT (policy) DO UPDATE SET plan = EXCLUDED.plan, planned_ts = EXCLUDED.planned_ts,
                        fingerprint = EXCLUDED.fingerprint,
                        armed_ts = CASE WHEN retention_plan.fingerprint = EXCLUDED.fingerprint
                            THEN retention_plan.armed_ts END,
                        armed_by = CASE WHEN retention_plan.fingerprint = EXCLUDED.fingerprint
                            THEN retention_plan.armed_by END""",  # noqa: S608 - static text
                policy,
                fingerprint,
                json.dumps(asdict(plan)),
            )

    async def arm(self, policy: str, fingerprint: str, *, armed: bool, plan_age_ms: int, act: AdminAction) -> bool:
        """Arm a policy, or disarm it; False when there is no plan of it as it reads, or only an old one."""
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                f"""UPDATE retention_plan SET armed_by = $3, armed_ts = CASE WHEN $3::text IS NOT NULL THEN {NOW_MS} END
                    WHERE policy = $1
                        AND ($3::text IS NULL OR fingerprint = $2 AND planned_ts >= {NOW_MS} - $4::bigint)""",  # noqa: S608 - static text
                policy,
                fingerprint,
                act.by if armed else None,
                plan_age_ms,
            )
            if tag == "UPDATE 1" or not armed:
                await write_entry(connection, act, policy, 0 if armed else int(tag == "UPDATE 1"))
        return bool(tag == "UPDATE 1")

    async def is_planned(self, policy: str, fingerprint: str, plan_age_ms: int) -> bool:
        """Say whether there is a plan of the policy as it reads, and not an old one."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                f"""SELECT EXISTS (SELECT FROM retention_plan
                    WHERE policy = $1 AND fingerprint = $2 AND planned_ts >= {NOW_MS} - $3::bigint)""",  # noqa: S608 - static text
                policy,
                fingerprint,
                plan_age_ms,
            )
        return bool(found)

    async def read(self) -> dict[str, StoredPlan]:
        """Read all, by their policies' names."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"SELECT {_COLUMNS} FROM retention_plan")  # noqa: S608 - static text
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
