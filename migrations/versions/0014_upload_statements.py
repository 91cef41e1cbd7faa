"""An upload's rows are written by one statement before its object is made, and by one afterwards."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

_INSERT_MEDIA = f"""INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, upload_name,
            uploaded_by, authenticated, created_ts, preview_expires_ts)
        VALUES (of_server, of_media, 'ready', false, found_id, of_type, of_name, of_user, is_authenticated,
            coalesce(of_created, {_NOW}), of_preview_expires)"""

_MEDIA = """of_server text, of_media text, of_type text, of_name text, of_user text, is_authenticated boolean,
    of_created bigint, of_preview_expires bigint"""

_LOCK_EQUAL = """SELECT blob_id INTO found_id FROM blob
            WHERE store = in_store AND sha256 = of_sha256 AND ownership = 'owned' AND sha256_state = 'verified'
                AND missing_ts IS NULL AND parent_blob_id IS NULL
            FOR KEY SHARE"""

_UPGRADE = (
    f"""
    -- Make media of equal content that is stored already, and say true; or note that an object is about to be made.
    CREATE FUNCTION begin_upload(in_store text, of_sha256 bytea, of_key text, look_for_equal boolean, {_MEDIA})
        RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE found_id bigint; BEGIN
        IF look_for_equal THEN
            {_LOCK_EQUAL};
            IF found_id IS NOT NULL THEN
                {_INSERT_MEDIA};
                RETURN true;
            END IF;
        END IF;
        INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts)
            VALUES (in_store, of_key, {_NOW}, {_NOW});
        RETURN false;
    END $$
    """,
    f"""
    -- Make media of an object that was just made, or of equal content that was stored meanwhile. Returns 'late', having
    -- changed nothing, when garbage collection may have claimed the object, and 'lost' after ten lost races for its
    -- hash.
    CREATE FUNCTION publish_upload(in_store text, of_sha256 bytea, of_key text, of_bytes bigint, key_ts bigint,
        max_age bigint, {_MEDIA})
        RETURNS text LANGUAGE plpgsql AS $$ DECLARE found_id bigint; started_ts bigint; BEGIN
        DELETE FROM multipart_intent WHERE store = in_store AND object_key = of_key
            RETURNING created_ts INTO started_ts;
        IF started_ts IS NULL AND (max_age IS NULL OR {_NOW} - key_ts > max_age) THEN
            RETURN 'late';
        END IF;
        FOR attempt IN 1..10 LOOP
            INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
                VALUES (in_store, of_key, of_bytes, of_sha256, 'verified', {_NOW})
                ON CONFLICT (store, sha256)
                    WHERE ownership = 'owned' AND sha256_state = 'verified' AND missing_ts IS NULL
                        AND parent_blob_id IS NULL
                    DO NOTHING
                RETURNING blob_id INTO found_id;
            EXIT WHEN found_id IS NOT NULL;
            {_LOCK_EQUAL};
            IF found_id IS NOT NULL THEN
                INSERT INTO object_deletion (store, object_key, queued_ts, next_attempt_ts)
                    VALUES (in_store, of_key, {_NOW}, {_NOW}) ON CONFLICT DO NOTHING;
                EXIT;
            END IF;
        END LOOP;
        IF found_id IS NULL THEN
            IF started_ts IS NOT NULL THEN
                INSERT INTO multipart_intent (store, object_key, created_ts, heartbeat_ts)
                    VALUES (in_store, of_key, started_ts, {_NOW});
            END IF;
            RETURN 'lost';
        END IF;
        {_INSERT_MEDIA};
        RETURN 'published';
    END $$
    """,
    "UPDATE schema_meta SET version = 14",
)


def upgrade() -> None:
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION begin_upload, publish_upload")
    op.execute("UPDATE schema_meta SET version = 13")
