"""Processes keep rows that they have read for a moment, under a lease, and are told when rows change."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TABLES = (
    """-- A process may serve rows from its memory for a second after `renewed_at`, and has dropped what it had read
    -- before the invalidation `dropped`.
    CREATE TABLE cache_lease (
        process    text        COLLATE "C" PRIMARY KEY,
        renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        dropped    bigint      NOT NULL
    )""",
    """-- One row: how many invalidations there were that somebody waited for.
    CREATE TABLE cache_invalidation (number bigint NOT NULL)""",
    "INSERT INTO cache_invalidation VALUES (0)",
    """CREATE FUNCTION tell_of_changed_rows() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        PERFORM pg_notify('mediarepo_rows_' || md5(current_schema()), '');
        RETURN NULL;
    END $$""",
)

_CHANGES = {
    "media": "OLD.state = 'ready' AND OLD IS DISTINCT FROM NEW",
    "blob": """(OLD.store, OLD.object_key, OLD.size_bytes, OLD.sha256, OLD.sha256_state, OLD.missing_ts)
        IS DISTINCT FROM (NEW.store, NEW.object_key, NEW.size_bytes, NEW.sha256, NEW.sha256_state, NEW.missing_ts)""",
    "thumbnail": "true",
    "media_mark": "true",
    "quarantined_hash": "true",
    "quarantined_blob": "true",
    "quarantined_server_name": "true",
}
"""The tables that tell whether media may be had and where they are, and which of their updates can matter to rows that
were ready and not hidden when they were read: no others are kept in memory."""

_ADDED = ("media_mark", "quarantined_hash", "quarantined_blob", "quarantined_server_name")
"""The tables in which a new row can hide what was not hidden."""


def upgrade() -> None:
    for statement in _TABLES:
        op.execute(statement)
    for table, when in _CHANGES.items():
        _follow(table, "changed", "UPDATE", f"FOR EACH ROW WHEN ({when})")
        _follow(table, "removed", "DELETE", "FOR EACH ROW")
        _follow(table, "emptied", "TRUNCATE", "FOR EACH STATEMENT")
    for table in _ADDED:
        _follow(table, "added", "INSERT", "FOR EACH ROW")
    op.execute("UPDATE schema_meta SET version = 16")


def _follow(table: str, name: str, event: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_told_{name} AFTER {event} ON {table} {each} EXECUTE FUNCTION tell_of_changed_rows()"
    )


def downgrade() -> None:
    for table in _CHANGES:
        for name in ("changed", "removed", "emptied", "added"):
            op.execute(f"DROP TRIGGER IF EXISTS {table}_told_{name} ON {table}")
    op.execute("DROP FUNCTION tell_of_changed_rows")
    op.execute("DROP TABLE cache_invalidation")
    op.execute("DROP TABLE cache_lease")
    op.execute("UPDATE schema_meta SET version = 15")
