"""Sizes and BlurHashes of pictures; formats that were not supported are tried again after a day."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_PICTURE = """-- What is known of content that is a picture; found out while it is thumbnailed.
CREATE TABLE picture (
    blob_id  bigint  PRIMARY KEY REFERENCES blob ON DELETE CASCADE,
    width    integer NOT NULL,
    height   integer NOT NULL,
    blurhash text    NOT NULL
)"""
_UNSUPPORTED = "reason = 'cannot be thumbnailed: unsupported_format'"


def upgrade() -> None:
    op.execute(_PICTURE)
    op.execute(f"UPDATE thumbnail_failure SET retry_ts = created_ts WHERE retry_ts IS NULL AND {_UNSUPPORTED}")
    op.execute("UPDATE schema_meta SET version = 17")


def downgrade() -> None:
    op.execute(f"UPDATE thumbnail_failure SET retry_ts = NULL WHERE {_UNSUPPORTED}")
    op.execute("DROP TABLE picture")
    op.execute("UPDATE schema_meta SET version = 16")
