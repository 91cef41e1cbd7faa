"""What homeservers' admins read is numbered for each of them, so that numbers tell nothing of the others."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_OURS = "(SELECT server_name FROM media WHERE NOT remote)"

UPGRADE = f"""
-- Each reader of changes has rows of its own, counted by itself: '' is the operator, else a homeserver. What was there
-- keeps its number, so that readers go on from where they are.
ALTER TABLE quarantine_change ALTER COLUMN change_id DROP IDENTITY;
ALTER TABLE quarantine_change ADD COLUMN viewer text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quarantine_change DROP CONSTRAINT quarantine_change_pkey;
INSERT INTO quarantine_change (viewer, change_id, server_name, media_id, quarantined, created_ts, scope)
    SELECT v.server_name, c.change_id, c.server_name, c.media_id, c.quarantined, c.created_ts, c.scope
    FROM quarantine_change c JOIN (SELECT DISTINCT server_name FROM media WHERE NOT remote) v
        ON c.scope IN ('', v.server_name) AND (c.server_name = v.server_name OR c.server_name NOT IN {_OURS});
ALTER TABLE quarantine_change ALTER COLUMN viewer DROP DEFAULT, ADD PRIMARY KEY (viewer, change_id);

-- The name of an entry for those who read it: a number would tell how much is done elsewhere.
ALTER TABLE audit_log ADD COLUMN entry_key uuid NOT NULL DEFAULT gen_random_uuid();
CREATE UNIQUE INDEX audit_log_key ON audit_log (entry_key);
CREATE INDEX audit_log_homeserver ON audit_log (homeserver, entry_id);

UPDATE schema_meta SET version = 11, min_compatible = 11;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 10, min_compatible = 10;
DROP INDEX audit_log_homeserver, audit_log_key;
ALTER TABLE audit_log DROP COLUMN entry_key;
DELETE FROM quarantine_change WHERE viewer <> '';
ALTER TABLE quarantine_change DROP CONSTRAINT quarantine_change_pkey;
ALTER TABLE quarantine_change DROP COLUMN viewer, ADD PRIMARY KEY (change_id);
ALTER TABLE quarantine_change ALTER COLUMN change_id ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('quarantine_change', 'change_id'),
    (SELECT coalesce(max(change_id), 0) + 1 FROM quarantine_change), false);
"""


def _run(script: str) -> None:
    """Run statements one at a time, since a prepared statement holds only one."""
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)


def upgrade() -> None:
    _run(UPGRADE)


def downgrade() -> None:
    _run(DOWNGRADE)
