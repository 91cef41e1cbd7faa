"""Whether the database is as new as its buckets, and objects that no row knows."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UPGRADE = """
-- Up to which time each store's keys were seen to be known; and the first object that the database should know and does
-- not, as it is older than the bucket. While there is such an object, nothing is deleted from any store.
CREATE TABLE store_recency (
    store           text   COLLATE "C" PRIMARY KEY,
    seen_until_ts   bigint,
    behind_since_ts bigint,
    lost_key        text   COLLATE "C",
    CHECK ((behind_since_ts IS NULL) = (lost_key IS NULL))
);

-- Objects that no row knows, and since when they have been seen there: they go only when that is long ago.
CREATE TABLE unknown_object (
    store         text   COLLATE "C" NOT NULL,
    object_key    text   COLLATE "C" NOT NULL,
    first_seen_ts bigint NOT NULL,
    last_seen_ts  bigint NOT NULL,
    PRIMARY KEY (store, object_key)
);

UPDATE schema_meta SET version = 12;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 11;
DROP TABLE unknown_object, store_recency;
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
