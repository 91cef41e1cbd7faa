"""What is hidden is found by index: content by its length, media by their address however their server is spelled."""

import re

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UPGRADE = """
-- Whether content of a length, or of a length that nobody knows, is hidden from somebody, and by whom.
DROP INDEX quarantined_hash_size;
CREATE INDEX quarantined_hash_length ON quarantined_hash (size_bytes, scope, owner);
CREATE INDEX quarantined_hash_no_length ON quarantined_hash (scope, owner) WHERE size_bytes IS NULL;

-- The server's name in lower case and without a last dot, since those who write it so reach the same server.
ALTER TABLE media_mark ADD COLUMN folded_name text COLLATE "C" NOT NULL
    GENERATED ALWAYS AS (regexp_replace(lower(server_name), '\\.+(?=(:[0-9]*)?$)', '')) STORED;
CREATE INDEX media_mark_folded ON media_mark (folded_name, media_id) WHERE kind = 'quarantine';

-- Whether media are protected against quarantine that an owner put on their content, as a homeserver's users see them
-- (NULL: all homeservers'): by the operator, or by a homeserver against homeservers. A function costs a query that does
-- not call it next to nothing.
CREATE FUNCTION is_spared(of_server text, of_media text, is_remote boolean, hidden_by text, viewer text) RETURNS boolean
    LANGUAGE plpgsql STABLE AS $$ BEGIN
    RETURN EXISTS (SELECT FROM media_mark p
        WHERE p.server_name = of_server AND p.media_id = of_media AND p.kind = 'protection'
            AND (p.owner = '' OR (hidden_by <> '' AND (p.scope IN ('', of_server)
                OR (is_remote AND (viewer IS NULL OR p.scope = viewer))))));
END $$;

-- Whether content of such a length is hidden from a homeserver's users, protection considered. The first of the owners
-- in a scope stands for all: the operator, whom only the operator's protection stops, comes before homeservers. Being a
-- minimum, it is one step into an index, however much is hidden.
CREATE FUNCTION may_be_hidden(of_server text, of_media text, is_remote boolean, length bigint, viewer text)
    RETURNS boolean LANGUAGE plpgsql STABLE AS $$ DECLARE first_owner text; BEGIN
    SELECT min(o.owner) INTO first_owner
    FROM unnest(ARRAY['', of_server, CASE WHEN is_remote THEN viewer END]) AS s (scope), LATERAL (VALUES
        ((SELECT min(q.owner) FROM quarantined_hash q WHERE q.size_bytes = length AND q.scope = s.scope)),
        ((SELECT min(q.owner) FROM quarantined_hash q WHERE q.size_bytes IS NULL AND q.scope = s.scope))) AS o (owner);
    RETURN first_owner IS NOT NULL AND NOT is_spared(of_server, of_media, is_remote, first_owner, viewer);
END $$;

UPDATE schema_meta SET version = 9, min_compatible = 8;
"""

DOWNGRADE = """
UPDATE schema_meta SET version = 8, min_compatible = 8;
DROP FUNCTION may_be_hidden, is_spared;
ALTER TABLE media_mark DROP COLUMN folded_name;
DROP INDEX quarantined_hash_length, quarantined_hash_no_length;
CREATE INDEX quarantined_hash_size ON quarantined_hash (size_bytes);
"""


def _run(script: str) -> None:
    """Run statements one at a time, since a prepared statement holds only one; what is indented goes on with one."""
    for statement in re.split(r";\n(?![ E])", script):
        if statement.strip():
            op.execute(statement)


def upgrade() -> None:
    _run(UPGRADE)


def downgrade() -> None:
    _run(DOWNGRADE)
