"""Items that background work could not process, set aside so that the others go on."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = """
-- One row for each item that a queue has set aside: why, how often it was tried, and when it is tried again.
CREATE TABLE failed_item (
    queue     text    COLLATE "C" NOT NULL,
    item_key  text    COLLATE "C" NOT NULL,
    error     text    NOT NULL,
    attempts  integer NOT NULL DEFAULT 1,
    first_ts  bigint  NOT NULL,
    last_ts   bigint  NOT NULL,
    retry_ts  bigint  NOT NULL,
    PRIMARY KEY (queue, item_key)
);

-- Readiness counts these; the queue itself may be long.
CREATE INDEX object_deletion_failed ON object_deletion (store) WHERE last_error IS NOT NULL;

UPDATE schema_meta SET version = 7;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 6;
DROP INDEX object_deletion_failed;
DROP TABLE failed_item;
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
