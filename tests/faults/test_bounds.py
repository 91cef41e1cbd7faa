"""Tables that anybody can fill by making things up keep the newest rows, and not for ever."""

import pytest

from mediarepo.app import scheduled_jobs
from mediarepo.app.repository import jobs_of
from mediarepo.services import previews
from tests.support.installation import Installation

FILL = {
    "remote_failure": """INSERT INTO remote_failure (server_name, media_id, asked_by, kind, message, created_ts)
        SELECT 'made-up.test', 'm' || n, '', 'not_found', '', $1::bigint + n FROM generate_series(1, 150) n""",
    "server_backoff": """INSERT INTO server_backoff (server_name, asked_by, failures, retry_ts, reason)
        SELECT n || '.test', '', 1, $1::bigint + n, 'unreachable' FROM generate_series(1, 150) n""",
    "server_keys": """INSERT INTO server_keys (server_name, verify_keys, valid_until_ts, fetched_ts)
        SELECT n || '.test', '{}', $1::bigint + n, $1::bigint + n FROM generate_series(1, 150) n""",
    "preview": """INSERT INTO preview (cache_key, url, failure, created_ts, expires_ts)
        SELECT sha256(n::text::bytea), 'https://a.test', 'none', $1::bigint + n, $1::bigint + 9000000 + n
        FROM generate_series(1, 150) n""",
}
NEWEST = {
    "remote_failure": "created_ts",
    "server_backoff": "retry_ts",
    "server_keys": "fetched_ts",
    "preview": "created_ts",
}
NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
YEAR_MS = 365 * 24 * 3_600_000


async def run_housekeeping(own: Installation) -> None:
    await own.rows("DELETE FROM job_run")
    for job in jobs_of(own.repository):
        if job.name in {"pending", "previews"}:
            await job.run()


@pytest.mark.parametrize("table", FILL)
async def test_only_the_newest_rows_stay_of_what_anybody_can_make_up(
    own: Installation, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(scheduled_jobs, "MAX_SERVER_ROWS", 100)
    monkeypatch.setattr(previews, "MAX_KEPT", 100)
    now = await own.value(NOW)
    await own.rows(FILL[table], now)
    await run_housekeeping(own)

    oldest, count = (await own.rows(f"SELECT min({NEWEST[table]}), count(*) FROM {table}"))[0]
    assert (oldest, count) == (now + 51, 100)


@pytest.mark.parametrize("table", ["remote_failure", "server_backoff", "server_keys"])
async def test_nothing_about_other_servers_stays_for_a_year(own: Installation, table: str) -> None:
    await own.rows(FILL[table], await own.value(NOW) - YEAR_MS)
    await run_housekeeping(own)

    assert await own.value(f"SELECT count(*) FROM {table}") == 0
