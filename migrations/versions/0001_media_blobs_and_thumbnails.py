"""Media, blobs, thumbnails, quarantine, the deletion outbox and multipart intents."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
-- What this schema is, and the oldest code that can serve on it. One row.
CREATE TABLE schema_meta (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version         integer NOT NULL,
    min_compatible  integer NOT NULL,
    installation_id uuid    NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO schema_meta (version, min_compatible) VALUES (1, 1);

-- Stored content and its place. The place is written down, never derived. A thumbnail pack is a blob with a parent.
CREATE TABLE blob (
    blob_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store          text   NOT NULL,
    object_key     text   COLLATE "C" NOT NULL,
    size_bytes     bigint NOT NULL CHECK (size_bytes >= 0),
    sha256         bytea  CHECK (octet_length(sha256) = 32),
    sha256_state   text   NOT NULL CHECK (sha256_state IN ('unknown', 'claimed', 'verified')),
    ownership      text   NOT NULL DEFAULT 'owned' CHECK (ownership IN ('owned', 'borrowed')),
    parent_blob_id bigint REFERENCES blob,
    missing_ts     bigint,
    created_ts     bigint NOT NULL,
    CHECK ((sha256 IS NULL) = (sha256_state = 'unknown')),
    UNIQUE (store, object_key)
);
CREATE UNIQUE INDEX blob_content ON blob (store, sha256)
    WHERE ownership = 'owned' AND sha256_state = 'verified' AND missing_ts IS NULL AND parent_blob_id IS NULL;
CREATE INDEX blob_sha256 ON blob (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX blob_parent ON blob (parent_blob_id) WHERE parent_blob_id IS NOT NULL;

-- One row per upload (local) or per remote media that is stored here.
CREATE TABLE media (
    server_name       text    COLLATE "C" NOT NULL,
    media_id          text    COLLATE "C" NOT NULL,
    state             text    NOT NULL CHECK (state IN ('pending', 'ready', 'missing', 'tombstone')),
    remote            boolean NOT NULL,
    blob_id           bigint  REFERENCES blob,
    content_type      text    NOT NULL,
    upload_name       text,
    uploaded_by       text    COLLATE "C",
    created_ts        bigint  NOT NULL,
    expires_ts        bigint,
    revision          integer NOT NULL DEFAULT 1,
    authenticated     boolean NOT NULL,
    protected         boolean NOT NULL DEFAULT false,
    quarantined_by    text,
    quarantine_reason text,
    import_source_id  bigint,
    PRIMARY KEY (server_name, media_id),
    CHECK (state <> 'ready' OR blob_id IS NOT NULL),
    CHECK ((state = 'pending') = (expires_ts IS NOT NULL))
);
CREATE INDEX media_blob ON media (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX media_uploaded_by ON media (uploaded_by, created_ts) WHERE uploaded_by IS NOT NULL;
CREATE INDEX media_pending ON media (expires_ts) WHERE state = 'pending';

-- When media was last asked for: narrow, so that its many updates stay cheap.
CREATE TABLE media_access (
    server_name    text   COLLATE "C" NOT NULL,
    media_id       text   COLLATE "C" NOT NULL,
    last_access_ts bigint NOT NULL,
    PRIMARY KEY (server_name, media_id),
    FOREIGN KEY (server_name, media_id) REFERENCES media ON DELETE CASCADE
) WITH (fillfactor = 70);

-- Quarantine that outlives the media it was put on.
CREATE TABLE quarantined_hash (
    sha256         bytea  PRIMARY KEY CHECK (octet_length(sha256) = 32),
    quarantined_by text   NOT NULL,
    reason         text,
    created_ts     bigint NOT NULL
);
CREATE TABLE quarantined_blob (
    blob_id        bigint PRIMARY KEY REFERENCES blob ON DELETE CASCADE,
    quarantined_by text   NOT NULL,
    reason         text,
    created_ts     bigint NOT NULL
);
CREATE TABLE quarantined_server_name (
    server_name    text   COLLATE "C" PRIMARY KEY,
    quarantined_by text   NOT NULL,
    reason         text,
    created_ts     bigint NOT NULL
);

-- Finished thumbnails: a byte range of a pack (a child blob), or of the source itself.
CREATE TABLE thumbnail (
    source_blob_id bigint  NOT NULL REFERENCES blob ON DELETE CASCADE,
    width          integer NOT NULL CHECK (width > 0),
    height         integer NOT NULL CHECK (height > 0),
    method         text    NOT NULL CHECK (method IN ('crop', 'scale')),
    animated       boolean NOT NULL,
    blob_id        bigint  NOT NULL REFERENCES blob ON DELETE CASCADE,
    byte_offset    bigint  NOT NULL,
    size_bytes     bigint  NOT NULL,
    content_type   text    NOT NULL,
    PRIMARY KEY (source_blob_id, width, height, method, animated)
);
CREATE INDEX thumbnail_blob ON thumbnail (blob_id);

-- Content that cannot be thumbnailed, so that it is not tried again.
CREATE TABLE thumbnail_failure (
    source_blob_id bigint  NOT NULL REFERENCES blob ON DELETE CASCADE,
    animated       boolean NOT NULL,
    reason         text    NOT NULL,
    created_ts     bigint  NOT NULL,
    PRIMARY KEY (source_blob_id, animated)
);

-- Objects that no row refers to any more: removed from S3 first, then forgotten here.
CREATE TABLE object_deletion (
    deletion_id     bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store           text    NOT NULL,
    object_key      text    COLLATE "C" NOT NULL,
    upload_id       text,
    queued_ts       bigint  NOT NULL,
    next_attempt_ts bigint  NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text,
    UNIQUE (store, object_key)
);
CREATE INDEX object_deletion_due ON object_deletion (next_attempt_ts);

-- Multipart uploads under way: consumed by publishing, or claimed by the sweep once the heartbeat is too old.
CREATE TABLE multipart_intent (
    store        text   NOT NULL,
    object_key   text   COLLATE "C" NOT NULL,
    upload_id    text,
    created_ts   bigint NOT NULL,
    heartbeat_ts bigint NOT NULL,
    PRIMARY KEY (store, object_key)
);
CREATE INDEX multipart_intent_heartbeat ON multipart_intent (heartbeat_ts);
"""

DOWNGRADE = """
DROP TABLE multipart_intent, object_deletion, thumbnail_failure, thumbnail, quarantined_server_name,
    quarantined_blob, quarantined_hash, media_access, media, blob, schema_meta;
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
