"""How a fetch of remote media failed is remembered for the homeserver in whose name it was asked for."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_KEYS = {"remote_failure": "server_name, media_id", "server_backoff": "server_name"}
"""What both tables know is good for moments only, so what is there is forgotten."""


def upgrade() -> None:
    for table, key in _KEYS.items():
        op.execute(f"DELETE FROM {table}")
        op.execute(
            f"""ALTER TABLE {table} DROP CONSTRAINT {table}_pkey,
                ADD COLUMN asked_by text COLLATE "C" NOT NULL, ADD PRIMARY KEY ({key}, asked_by)"""
        )
    op.execute("UPDATE schema_meta SET version = 10, min_compatible = 10")


def downgrade() -> None:
    op.execute("UPDATE schema_meta SET version = 9, min_compatible = 8")
    for table, key in _KEYS.items():
        op.execute(f"DELETE FROM {table}")
        op.execute(f"ALTER TABLE {table} DROP COLUMN asked_by, ADD PRIMARY KEY ({key})")
