"""Leases, other servers' keys, and what is remembered of servers that failed."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
-- Work that one process at a time may do. `fence` grows with each holder, so that a late one can be told apart.
CREATE TABLE lease (
    name       text   COLLATE "C" PRIMARY KEY,
    fence      bigint GENERATED ALWAYS AS IDENTITY,
    expires_ts bigint NOT NULL
);
CREATE INDEX lease_expires ON lease (expires_ts);

-- Other servers' signing keys: key id to unpadded base64.
CREATE TABLE server_keys (
    server_name    text   COLLATE "C" PRIMARY KEY,
    verify_keys    jsonb  NOT NULL,
    valid_until_ts bigint NOT NULL,
    fetched_ts     bigint NOT NULL
);

-- Remote media that could not be fetched, so that those who wait for the attempt learn of it.
CREATE TABLE remote_failure (
    server_name text   COLLATE "C" NOT NULL,
    media_id    text   COLLATE "C" NOT NULL,
    kind        text   NOT NULL,
    message     text   NOT NULL,
    created_ts  bigint NOT NULL,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX remote_failure_created ON remote_failure (created_ts);

-- Servers that could not be reached, and when they are asked again.
CREATE TABLE server_backoff (
    server_name text    COLLATE "C" PRIMARY KEY,
    failures    integer NOT NULL,
    retry_ts    bigint  NOT NULL,
    reason      text    NOT NULL
);

-- How many media a user has announced and not uploaded yet.
CREATE INDEX media_pending_of ON media (uploaded_by, expires_ts) WHERE state = 'pending';

-- When content is tried again whose failure may have been the moment's fault; NULL: never, the file is to blame.
ALTER TABLE thumbnail_failure ADD COLUMN attempts integer NOT NULL DEFAULT 1, ADD COLUMN retry_ts bigint;

UPDATE schema_meta SET version = 2;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 1;
ALTER TABLE thumbnail_failure DROP COLUMN attempts, DROP COLUMN retry_ts;
DROP INDEX media_pending_of;
DROP TABLE server_backoff, remote_failure, server_keys, lease;
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
