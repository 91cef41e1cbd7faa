"""Objects may move between stores: each move, and where its objects lay before; the journal follows them."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_MOVED = """SELECT b.blob_id, b.store AS old_store, b.object_key AS old_key, a.store, a.object_key
            FROM before b JOIN added a USING (blob_id)
            WHERE (a.store, a.object_key) IS DISTINCT FROM (b.store, b.object_key)"""

_UPGRADE = (
    """
    -- Moves of objects from one store to another. `undoes`: the move whose objects go back.
    CREATE TABLE store_move (
        move_id     bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        from_store  text    NOT NULL,
        to_store    text    NOT NULL,
        criteria    jsonb   NOT NULL,
        undoes      bigint  REFERENCES store_move,
        started_by  text    NOT NULL,
        started_ts  bigint  NOT NULL,
        ended_ts    bigint,
        moved_count bigint  NOT NULL DEFAULT 0,
        moved_bytes bigint  NOT NULL DEFAULT 0,
        failed      bigint  NOT NULL DEFAULT 0
    )
    """,
    """
    -- Where an object lay before its last move; it is there until its deletion is due, unless it is somebody else's.
    CREATE TABLE moved_object (
        blob_id    bigint  PRIMARY KEY REFERENCES blob ON DELETE CASCADE,
        move_id    bigint  NOT NULL REFERENCES store_move,
        store      text    NOT NULL,
        object_key text    COLLATE "C" NOT NULL,
        ownership  text    NOT NULL CHECK (ownership IN ('owned', 'borrowed')),
        moved_ts   bigint  NOT NULL
    )
    """,
    "CREATE INDEX moved_object_move ON moved_object (move_id)",
    f"""
    -- The journal names objects by their places: with the place of one, everything that names it changes.
    CREATE FUNCTION journal_blob_moved() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        IF coalesce(current_setting('mediarepo.unjournaled', true), '') = 'on' THEN RETURN NULL; END IF;
        IF NOT EXISTS ({_MOVED}) THEN RETURN NULL; END IF;
        WITH moved AS ({_MOVED})
        INSERT INTO journal_change (kind, row_key)
            SELECT 'blob', ARRAY[old_store, old_key] FROM moved
            UNION SELECT 'blob', ARRAY[c.store, c.object_key] FROM moved JOIN blob c ON c.parent_blob_id = moved.blob_id
            UNION SELECT 'media', ARRAY[m.server_name, m.media_id] FROM moved JOIN media m USING (blob_id)
            UNION SELECT 'thumbnail', ARRAY[place.store, place.object_key]
                FROM moved JOIN thumbnail t ON t.source_blob_id = moved.blob_id
                    CROSS JOIN LATERAL (VALUES (old_store, old_key), (moved.store, moved.object_key))
                        AS place (store, object_key)
            UNION SELECT 'thumbnail', ARRAY[s.store, s.object_key]
                FROM moved JOIN thumbnail t USING (blob_id) JOIN blob s ON s.blob_id = t.source_blob_id
            UNION SELECT 'quarantined_blob', ARRAY[place.store, place.object_key, q.owner, q.scope]
                FROM moved JOIN quarantined_blob q USING (blob_id)
                    CROSS JOIN LATERAL (VALUES (old_store, old_key), (moved.store, moved.object_key))
                        AS place (store, object_key);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER blob_journal_moved AFTER UPDATE ON blob
        REFERENCING OLD TABLE AS before NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION journal_blob_moved()
    """,
    "UPDATE schema_meta SET version = 18",
)


def upgrade() -> None:
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER blob_journal_moved ON blob")
    op.execute("DROP FUNCTION journal_blob_moved")
    op.execute("DROP TABLE moved_object, store_move")
    op.execute("UPDATE schema_meta SET version = 17")
