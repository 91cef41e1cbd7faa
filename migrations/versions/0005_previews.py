"""Previews of web pages, and the images kept for them."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
-- What is answered about a URL, for one homeserver, language and stretch of time; or why there is no answer.
CREATE TABLE preview (
    cache_key  bytea  PRIMARY KEY CHECK (octet_length(cache_key) = 32),
    url        text   NOT NULL,
    answer     json,
    failure    text,
    created_ts bigint NOT NULL,
    expires_ts bigint NOT NULL,
    CHECK ((answer IS NULL) = (failure IS NOT NULL))
);
CREATE INDEX preview_expires ON preview (expires_ts);

-- Images of previews are media that go by themselves.
ALTER TABLE media ADD COLUMN preview_expires_ts bigint;
CREATE INDEX media_preview_expires ON media (preview_expires_ts) WHERE preview_expires_ts IS NOT NULL;

UPDATE schema_meta SET version = 5;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 4;
DROP INDEX media_preview_expires;
ALTER TABLE media DROP COLUMN preview_expires_ts;
DROP TABLE preview;
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
