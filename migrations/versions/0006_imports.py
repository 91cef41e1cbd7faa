"""What is imported from other media repositories, item by item."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UPGRADE = """
-- Another media repository that media come from; media.import_source_id refers to it.
CREATE TABLE import_source (
    source_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text   COLLATE "C" NOT NULL UNIQUE,
    kind         text   NOT NULL,
    created_ts   bigint NOT NULL,
    finalized_ts bigint
);

-- One turn of a command. A complete one has seen every row of its source.
CREATE TABLE import_run (
    run_id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id    bigint  NOT NULL REFERENCES import_source ON DELETE CASCADE,
    command      text    NOT NULL,
    options      jsonb   NOT NULL DEFAULT '{}',
    started_ts   bigint  NOT NULL,
    heartbeat_ts bigint  NOT NULL,
    finished_ts  bigint,
    complete     boolean NOT NULL DEFAULT false,
    figures      jsonb   NOT NULL DEFAULT '{}',
    error        text
);
CREATE INDEX import_run_source ON import_run (source_id, run_id);

-- One row of a source, and what became of it here. Names are those of the source, which need not be valid ones.
CREATE TABLE import_item (
    source_id      bigint  NOT NULL REFERENCES import_source ON DELETE CASCADE,
    server_name    text    COLLATE "C" NOT NULL,
    media_id       text    COLLATE "C" NOT NULL,
    kind           text    NOT NULL,
    state          text    NOT NULL CHECK (state IN ('committed', 'skipped', 'missing', 'mismatched', 'failed')),
    mode           text,
    reason         text,
    size_bytes     bigint,
    sha256         bytea   CHECK (octet_length(sha256) = 32),
    place          text,
    fingerprint    bytea   NOT NULL,
    quarantined_by text,
    protected      boolean NOT NULL DEFAULT false,
    run_id         bigint  NOT NULL,
    seen_run_id    bigint  NOT NULL,
    gone           boolean NOT NULL DEFAULT false,
    attempts       integer NOT NULL DEFAULT 1,
    updated_ts     bigint  NOT NULL,
    verified       text,
    verified_ts    bigint,
    PRIMARY KEY (source_id, server_name, media_id)
) WITH (fillfactor = 80);
CREATE INDEX import_item_hidden ON import_item (source_id, sha256) WHERE quarantined_by IS NOT NULL;
CREATE INDEX import_item_open ON import_item (source_id, state) WHERE state <> 'committed';

-- Bytes of a source that none of its rows mentions, as the last complete run saw them.
CREATE TABLE import_orphan (
    source_id  bigint NOT NULL REFERENCES import_source ON DELETE CASCADE,
    run_id     bigint NOT NULL,
    place      text   COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (source_id, place)
);

CREATE INDEX media_import_source ON media (import_source_id) WHERE import_source_id IS NOT NULL;

-- Who makes objects in batches, so that what it leaves can be removed as soon as it is known to be dead.
ALTER TABLE multipart_intent ADD COLUMN holder text COLLATE "C";
CREATE INDEX multipart_intent_holder ON multipart_intent (holder) WHERE holder IS NOT NULL;

UPDATE schema_meta SET version = 6;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 5;
DROP INDEX multipart_intent_holder;
ALTER TABLE multipart_intent DROP COLUMN holder;
DROP INDEX media_import_source;
DROP TABLE import_orphan, import_item, import_run, import_source;
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
