"""Trash, legal holds, the log of what admins do, and the history of quarantine."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
-- Trashed media keep their content until `trashed_ts` is old enough, so that a deletion can be undone.
ALTER TABLE media DROP CONSTRAINT media_state_check;
ALTER TABLE media ADD CONSTRAINT media_state_check
    CHECK (state IN ('pending', 'ready', 'missing', 'trashed', 'tombstone'));
ALTER TABLE media ADD COLUMN trashed_ts bigint;
ALTER TABLE media ADD CONSTRAINT media_trashed_check CHECK ((state = 'trashed') = (trashed_ts IS NOT NULL));
CREATE INDEX media_trashed ON media (trashed_ts) WHERE state = 'trashed';

-- Whoever is named here keeps the media from being deleted, by whomever.
ALTER TABLE media ADD COLUMN held_by text;
ALTER TABLE media ADD COLUMN hold_reason text;

CREATE INDEX media_created ON media (created_ts);

-- What was hidden and shown again, in order.
CREATE TABLE quarantine_change (
    change_id   bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_name text    COLLATE "C" NOT NULL,
    media_id    text    COLLATE "C" NOT NULL,
    quarantined boolean NOT NULL,
    created_ts  bigint  NOT NULL
);

-- Everything an admin did. Rows are added, never changed.
CREATE TABLE audit_log (
    entry_id    bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_ts  bigint  NOT NULL,
    admin       text    NOT NULL,
    homeserver  text,
    action      text    NOT NULL,
    target      text    NOT NULL,
    reason      text,
    affected    bigint  NOT NULL
);
CREATE INDEX audit_log_target ON audit_log (target);
CREATE FUNCTION audit_log_stays() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the audit log is only added to'; END $$;
CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_stays();

UPDATE schema_meta SET version = 3, min_compatible = 3;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 2, min_compatible = 1;
DROP TABLE audit_log, quarantine_change;
DROP FUNCTION audit_log_stays;
DROP INDEX media_created;
UPDATE media SET state = 'ready', trashed_ts = NULL WHERE state = 'trashed';
ALTER TABLE media DROP COLUMN hold_reason, DROP COLUMN held_by, DROP COLUMN trashed_ts;
ALTER TABLE media DROP CONSTRAINT media_state_check;
ALTER TABLE media ADD CONSTRAINT media_state_check CHECK (state IN ('pending', 'ready', 'missing', 'tombstone'));
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
