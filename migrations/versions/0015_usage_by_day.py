"""How much was stored on each day, so that growth can be seen."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """CREATE TABLE media_usage_day (
            day         date   NOT NULL,
            class       text   COLLATE "C" NOT NULL,
            server_name text   COLLATE "C" NOT NULL,
            media_count bigint NOT NULL,
            size_bytes  bigint NOT NULL,
            PRIMARY KEY (day, class, server_name)
        )"""
    )
    op.execute(
        """CREATE TABLE object_usage_day (
            day          date   NOT NULL,
            store        text   COLLATE "C" NOT NULL,
            class        text   COLLATE "C" NOT NULL,
            object_count bigint NOT NULL,
            size_bytes   bigint NOT NULL,
            PRIMARY KEY (day, store, class)
        )"""
    )
    op.execute("UPDATE schema_meta SET version = 15")


def downgrade() -> None:
    op.execute("DROP TABLE object_usage_day, media_usage_day")
    op.execute("UPDATE schema_meta SET version = 14")
