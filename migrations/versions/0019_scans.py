"""What content scanners were asked and said, what waits for them, and what is held until they have spoken."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_UPGRADE = (
    """
    -- The last verdict of each scanner on a content; `hidden` says that it quarantined the content.
    CREATE TABLE scan_result (
        scanner    text   COLLATE "C" NOT NULL,
        sha256     bytea  NOT NULL,
        verdict    text   COLLATE "C" NOT NULL CHECK (verdict IN ('clean', 'infected', 'unscannable')),
        signatures text   NOT NULL,
        detail     text,
        hidden     boolean NOT NULL,
        scanned_ts bigint NOT NULL,
        PRIMARY KEY (scanner, sha256)
    )
    """,
    "CREATE INDEX scan_result_age ON scan_result (scanned_ts)",
    """
    -- Contents that wait for a scanner; a worker claims a row by moving next_attempt_ts.
    CREATE TABLE scan_queue (
        scanner         text   COLLATE "C" NOT NULL,
        sha256          bytea  NOT NULL,
        size_bytes      bigint NOT NULL,
        content_type    text   NOT NULL,
        scan_class      text   COLLATE "C" NOT NULL,
        attempts        integer NOT NULL DEFAULT 0,
        queued_ts       bigint NOT NULL,
        next_attempt_ts bigint NOT NULL,
        PRIMARY KEY (scanner, sha256)
    )
    """,
    "CREATE INDEX scan_queue_due ON scan_queue (scanner, next_attempt_ts)",
    """
    -- Media that are hidden until a scanner has spoken about their content; each has a mark that hides it.
    CREATE TABLE scan_hold (
        server_name text   COLLATE "C" NOT NULL,
        media_id    text   COLLATE "C" NOT NULL,
        scanner     text   COLLATE "C" NOT NULL,
        sha256      bytea  NOT NULL,
        PRIMARY KEY (server_name, media_id, scanner)
    )
    """,
    "CREATE INDEX scan_hold_content ON scan_hold (scanner, sha256)",
    """
    -- How far each scanner's round over all stored content is.
    CREATE TABLE scan_round (
        scanner       text   COLLATE "C" PRIMARY KEY,
        signatures    text   NOT NULL,
        after_blob_id bigint NOT NULL,
        started_ts    bigint NOT NULL,
        finished_ts   bigint
    )
    """,
    "CREATE INDEX media_mark_scanners ON media_mark (owner) WHERE owner LIKE 'scanner:%'",
    "UPDATE schema_meta SET version = 19",
)

_DOWNGRADE = (
    "DROP INDEX media_mark_scanners",
    "DELETE FROM media_mark WHERE owner LIKE 'scanner:%'",
    "DELETE FROM quarantined_hash WHERE owner LIKE 'scanner:%'",
    "DROP TABLE scan_round, scan_hold, scan_queue, scan_result",
    "UPDATE schema_meta SET version = 18",
)


def upgrade() -> None:
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWNGRADE:
        op.execute(statement)
