"""Counters of usage, quotas, shared rate limits, tasks, and retention."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DIMENSIONS = "class, server_name, user_id, content_type, month"

_COUNTED = """
    CASE WHEN m.state = 'trashed' THEN 'trashed' WHEN m.remote THEN 'remote' ELSE 'local' END AS class,
    m.server_name,
    coalesce(m.uploaded_by, '') AS user_id,
    CASE WHEN split_part(lower(m.content_type), '/', 1) IN ('image', 'video', 'audio', 'text', 'application')
        THEN split_part(lower(m.content_type), '/', 1) ELSE 'other' END AS content_type,
    to_char(to_timestamp(least(greatest(m.created_ts, 0), 253402300799000) / 1000) AT TIME ZONE 'UTC',
        'YYYY-MM') AS month
"""
_IN_USE = "m.state IN ('ready', 'missing', 'trashed')"

_COUNT_MEDIA = f"""
    INSERT INTO media_usage_delta ({_DIMENSIONS}, media_count, size_bytes)
    SELECT {_DIMENSIONS}, sum(sign), sum(sign * size_bytes) FROM (
        SELECT {_COUNTED}, m.sign, coalesce(b.size_bytes, 0) AS size_bytes
        FROM (%s) m LEFT JOIN blob b ON b.blob_id = m.blob_id WHERE {_IN_USE}
    ) counted
    GROUP BY {_DIMENSIONS} HAVING sum(sign) <> 0 OR sum(sign * size_bytes) <> 0
"""

_COUNT_OBJECTS = """
    INSERT INTO object_usage_delta (store, class, object_count, size_bytes)
    SELECT store, class, sum(sign), sum(sign * size_bytes) FROM (
        SELECT o.store, o.sign, o.size_bytes, CASE WHEN o.ownership = 'borrowed' THEN 'borrowed'
            WHEN o.parent_blob_id IS NOT NULL THEN 'thumbnails' ELSE 'content' END AS class
        FROM (%s) o WHERE o.missing_ts IS NULL
    ) counted
    GROUP BY store, class HAVING sum(sign) <> 0 OR sum(sign * size_bytes) <> 0
"""

_ADDED = "SELECT 1 AS sign, * FROM added"
_REMOVED = "SELECT -1 AS sign, * FROM removed"

UPGRADE = """
-- What media take up, for questions that must be answered at once. Triggers write deltas, which a job folds together;
-- the sum of both tables is always right. Equal content counts once for each media here; objects are counted below.
CREATE TABLE media_usage (
    class        text   NOT NULL CHECK (class IN ('local', 'remote', 'trashed')),
    server_name  text   COLLATE "C" NOT NULL,
    user_id      text   COLLATE "C" NOT NULL,
    content_type text   NOT NULL,
    month        text   NOT NULL,
    media_count  bigint NOT NULL,
    size_bytes   bigint NOT NULL,
    PRIMARY KEY (user_id, server_name, class, content_type, month)
);
CREATE TABLE media_usage_delta (
    delta_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    class        text   NOT NULL,
    server_name  text   COLLATE "C" NOT NULL,
    user_id      text   COLLATE "C" NOT NULL,
    content_type text   NOT NULL,
    month        text   NOT NULL,
    media_count  bigint NOT NULL,
    size_bytes   bigint NOT NULL
);
CREATE INDEX media_usage_delta_user ON media_usage_delta (user_id);

-- What objects take up in each store: what is really paid for.
CREATE TABLE object_usage (
    store        text   NOT NULL,
    class        text   NOT NULL CHECK (class IN ('content', 'thumbnails', 'borrowed')),
    object_count bigint NOT NULL,
    size_bytes   bigint NOT NULL,
    PRIMARY KEY (store, class)
);
CREATE TABLE object_usage_delta (
    delta_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store        text   NOT NULL,
    class        text   NOT NULL,
    object_count bigint NOT NULL,
    size_bytes   bigint NOT NULL
);

-- Room that uploads under way have been promised; what a crash leaves runs out.
CREATE TABLE quota_reservation (
    reservation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id        text   COLLATE "C" NOT NULL,
    size_bytes     bigint NOT NULL,
    expires_ts     bigint NOT NULL
);
CREATE INDEX quota_reservation_user ON quota_reservation (user_id);
CREATE INDEX quota_reservation_expires ON quota_reservation (expires_ts);

-- How full the leaky buckets of rate limits are, for all processes; losing it in a crash does no harm.
CREATE UNLOGGED TABLE rate_level (
    bucket     text             COLLATE "C" PRIMARY KEY,
    level      double precision NOT NULL,
    per_s      double precision NOT NULL,
    updated_ts bigint           NOT NULL
) WITH (fillfactor = 70);

-- Work that admins ask for and that takes long.
CREATE TABLE task (
    task_id     bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text    NOT NULL,
    arguments   jsonb   NOT NULL,
    state       text    NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    created_by  text    NOT NULL,
    homeserver  text    COLLATE "C",
    created_ts  bigint  NOT NULL,
    started_ts  bigint,
    finished_ts bigint,
    attempts    integer NOT NULL DEFAULT 0,
    cancelling  boolean NOT NULL DEFAULT false,
    progress    jsonb   NOT NULL DEFAULT '{}',
    result      jsonb,
    error       text
);
CREATE INDEX task_open ON task (task_id) WHERE state IN ('queued', 'running');

-- When the fleet last did its regular work, so that it is done once by all processes together.
CREATE TABLE job_run (
    name        text    COLLATE "C" PRIMARY KEY,
    started_ts  bigint  NOT NULL,
    finished_ts bigint,
    error       text,
    result      jsonb
);

-- What a retention policy would remove, as last counted, and who armed it since.
CREATE TABLE retention_plan (
    policy      text   COLLATE "C" PRIMARY KEY,
    fingerprint text   NOT NULL,
    plan        jsonb  NOT NULL,
    planned_ts  bigint NOT NULL,
    armed_ts    bigint,
    armed_by    text
);

-- How long hidden content is, where that is known: only content as long, whose hash is unknown, need be looked at.
ALTER TABLE quarantined_hash ADD COLUMN size_bytes bigint;
UPDATE quarantined_hash q SET size_bytes = (SELECT min(size_bytes) FROM blob b WHERE b.sha256 = q.sha256);
CREATE INDEX quarantined_hash_size ON quarantined_hash (size_bytes);
CREATE INDEX blob_unknown ON blob (blob_id) WHERE sha256_state = 'unknown' AND parent_blob_id IS NULL;

-- Whoever is named here keeps the media from retention.
ALTER TABLE media ADD COLUMN pinned_by text;

CREATE FUNCTION count_media() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN @media_added@;
    ELSIF TG_OP = 'DELETE' THEN @media_removed@;
    ELSE @media_changed@;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER media_added AFTER INSERT ON media
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_media();
CREATE TRIGGER media_removed AFTER DELETE ON media
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_media();
CREATE TRIGGER media_changed AFTER UPDATE ON media
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_media();

CREATE FUNCTION count_objects() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN @objects_added@;
    ELSIF TG_OP = 'DELETE' THEN @objects_removed@;
    ELSE @objects_changed@;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER objects_added AFTER INSERT ON blob
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_objects();
CREATE TRIGGER objects_removed AFTER DELETE ON blob
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_objects();
CREATE TRIGGER objects_changed AFTER UPDATE ON blob
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_objects();

-- Count what is there already.
@media_before@;
@objects_before@;

UPDATE schema_meta SET version = 4;
"""

_PARTS = {
    "@media_added@": _COUNT_MEDIA % _ADDED,
    "@media_removed@": _COUNT_MEDIA % _REMOVED,
    "@media_changed@": _COUNT_MEDIA % f"{_REMOVED} UNION ALL {_ADDED}",
    "@media_before@": _COUNT_MEDIA % "SELECT 1 AS sign, * FROM media",
    "@objects_added@": _COUNT_OBJECTS % _ADDED,
    "@objects_removed@": _COUNT_OBJECTS % _REMOVED,
    "@objects_changed@": _COUNT_OBJECTS % f"{_REMOVED} UNION ALL {_ADDED}",
    "@objects_before@": _COUNT_OBJECTS % "SELECT 1 AS sign, * FROM blob",
}

DOWNGRADE = """
UPDATE schema_meta SET version = 3;
DROP TRIGGER media_added ON media;
DROP TRIGGER media_removed ON media;
DROP TRIGGER media_changed ON media;
DROP TRIGGER objects_added ON blob;
DROP TRIGGER objects_removed ON blob;
DROP TRIGGER objects_changed ON blob;
DROP FUNCTION count_media, count_objects;
ALTER TABLE media DROP COLUMN pinned_by;
DROP INDEX blob_unknown, quarantined_hash_size;
ALTER TABLE quarantined_hash DROP COLUMN size_bytes;
DROP TABLE retention_plan, job_run, task, rate_level, quota_reservation, object_usage_delta, object_usage,
    media_usage_delta, media_usage;
"""


def upgrade() -> None:
    script = UPGRADE
    for name, text in _PARTS.items():
        script = script.replace(name, text.strip())
    for statement in _statements(script):
        op.execute(statement)


def downgrade() -> None:
    for statement in _statements(DOWNGRADE):
        op.execute(statement)


def _statements(script: str) -> list[str]:
    """Split a script, since a prepared statement holds only one; a function's body is not split."""
    statements, in_body = [""], False
    for line in script.splitlines(keepends=True):
        statements[-1] += line
        in_body ^= line.count("$$") % 2 == 1
        if line.rstrip().endswith(";") and not in_body:
            statements.append("")
    return [statement for statement in statements if statement.strip()]
