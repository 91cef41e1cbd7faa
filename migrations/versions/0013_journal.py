"""What changes in tables is written down, so that a journal in the bucket can follow; and rows read back from it."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

_JOURNALED = {
    "blob": ("ARRAY[r.store, r.object_key]", ""),
    "media": ("ARRAY[r.server_name, r.media_id]", ""),
    "thumbnail": ("ARRAY[b.store, b.object_key]", "JOIN blob b ON b.blob_id = r.source_blob_id"),
    "media_mark": ("ARRAY[r.server_name, r.media_id, r.kind, r.owner]", ""),
    "quarantined_hash": ("ARRAY[encode(r.sha256, 'hex'), r.owner, r.scope]", ""),
    "quarantined_blob": (
        "ARRAY[b.store, b.object_key, r.owner, r.scope]",
        "JOIN blob b ON b.blob_id = r.blob_id",
    ),
    "quarantined_server_name": ("ARRAY[r.server_name]", ""),
}
"""Tables that the journal follows, and how it names a row: with names that another database has, too."""

_TABLES = f"""
-- Rows that have changed since the journal was last written; rows of it are removed once S3 has the change.
CREATE TABLE journal_change (
    change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text   COLLATE "C" NOT NULL,
    row_key    text[] COLLATE "C" NOT NULL,
    created_ts bigint NOT NULL DEFAULT {_NOW}
);

-- How far the journal has come: the number that was last given out, and that of the last whole copy. One row.
CREATE TABLE journal_state (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence          bigint  NOT NULL DEFAULT 0,
    snapshot_sequence bigint,
    snapshot_ts       bigint
);
INSERT INTO journal_state DEFAULT VALUES;

-- What a rebuild has read of a journal so far: the newest state of each row; NULL: there is none any more.
CREATE TABLE rebuild_row (
    kind     text   COLLATE "C" NOT NULL,
    row_key  text[] COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    value    jsonb,
    PRIMARY KEY (kind, row_key)
);
CREATE TABLE rebuild_part (
    object_key text COLLATE "C" PRIMARY KEY
);
"""

_FOLLOWED = """
CREATE FUNCTION journal_{table}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF coalesce(current_setting('mediarepo.unjournaled', true), '') = 'on' THEN RETURN NULL; END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO journal_change (kind, row_key) SELECT DISTINCT '{table}', {key} FROM removed r {join};
    ELSE
        INSERT INTO journal_change (kind, row_key) SELECT DISTINCT '{table}', {key} FROM added r {join};
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER {table}_journal_added AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION journal_{table}();
CREATE TRIGGER {table}_journal_removed AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION journal_{table}();
CREATE TRIGGER {table}_journal_changed AFTER UPDATE ON {table}
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION journal_{table}();
"""

_LET_GO = """
DROP TRIGGER {table}_journal_added ON {table};
DROP TRIGGER {table}_journal_removed ON {table};
DROP TRIGGER {table}_journal_changed ON {table};
DROP FUNCTION journal_{table};
"""


def upgrade() -> None:
    _run(_TABLES)
    for table, (key, join) in _JOURNALED.items():
        _run(_FOLLOWED.format(table=table, key=key, join=join))
    op.execute("UPDATE schema_meta SET version = 13")


def downgrade() -> None:
    for table in _JOURNALED:
        _run(_LET_GO.format(table=table))
    op.execute("DROP TABLE rebuild_part, rebuild_row, journal_state, journal_change")
    op.execute("UPDATE schema_meta SET version = 12")


def _run(script: str) -> None:
    """Run statements one at a time, since a prepared statement holds only one; a function's body is not split."""
    statements, in_body = [""], False
    for line in script.splitlines(keepends=True):
        statements[-1] += line
        in_body ^= line.count("$$") % 2 == 1
        if line.rstrip().endswith(";") and not in_body:
            statements.append("")
    for statement in statements:
        if statement.strip():
            op.execute(statement)
