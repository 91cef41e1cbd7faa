"""Quarantine, protection, legal holds and pins have an owner, and quarantine a scope."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SET_BY_OPERATOR = "IN ('operator', 'command line')"
_OF_LOCAL = f"CASE WHEN by_whom {_SET_BY_OPERATOR} THEN '' ELSE server_name END"
_OF_ANY = "CASE WHEN by_whom ~ '^@[^:]+:.' THEN substring(by_whom FROM '^@[^:]+:(.*)$') ELSE '' END"
_OWNER = f"CASE WHEN remote THEN {_OF_ANY} ELSE {_OF_LOCAL} END"
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def _moved(kind: str, by: str, reason: str, scope: str) -> str:
    """Make marks of a column of media."""
    return f"""INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
    SELECT server_name, media_id, '{kind}', {_OWNER}, {scope.format(owner=_OWNER)}, by_whom, reason, {_NOW}
    FROM (SELECT server_name, media_id, remote, {by} AS by_whom, {reason} AS reason FROM media WHERE {by} IS NOT NULL) m"""  # noqa: E501 - one statement


_PROTECTED_BY = """CASE WHEN protected THEN coalesce((SELECT l.admin FROM audit_log l
    WHERE l.target = 'mxc://' || media.server_name || '/' || media.media_id AND l.action = 'protect'
    ORDER BY l.entry_id DESC LIMIT 1), '') END"""

UPGRADE = f"""
-- What somebody wants of single media, known here or not yet. `owner` may lift it: '' is the operator, else a
-- homeserver. `scope` is whom a quarantine hides media from: '' means all, else one homeserver's users; own media are
-- hidden from everybody by their own homeserver's.
CREATE TABLE media_mark (
    server_name text   COLLATE "C" NOT NULL,
    media_id    text   COLLATE "C" NOT NULL,
    kind        text   COLLATE "C" NOT NULL CHECK (kind IN ('quarantine', 'protection', 'hold', 'pin')),
    owner       text   COLLATE "C" NOT NULL,
    scope       text   COLLATE "C" NOT NULL,
    set_by      text   NOT NULL,
    reason      text,
    created_ts  bigint NOT NULL,
    PRIMARY KEY (server_name, media_id, kind, owner)
);

-- What is there already keeps hiding as much as it did; whoever set it, as far as that is known, may lift it.
{_moved("quarantine", "quarantined_by", "quarantine_reason", "CASE WHEN remote THEN '' ELSE {owner} END")};
{_moved("protection", _PROTECTED_BY, "NULL::text", "{owner}")};
{_moved("hold", "held_by", "hold_reason", "{owner}")};
{_moved("pin", "pinned_by", "NULL::text", "{owner}")};
UPDATE media_mark k SET reason = 'imported from ' || s.name FROM import_item i JOIN import_source s USING (source_id)
    WHERE k.reason IS NULL AND i.server_name = k.server_name AND i.media_id = k.media_id
        AND ((k.kind = 'quarantine' AND i.quarantined_by = k.set_by) OR (k.kind = 'protection' AND i.protected));
ALTER TABLE quarantined_hash ADD COLUMN owner text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quarantined_hash ADD COLUMN scope text COLLATE "C" NOT NULL DEFAULT '';
UPDATE quarantined_hash SET owner = substring(quarantined_by FROM '^@[^:]+:(.*)$') WHERE quarantined_by ~ '^@[^:]+:.';
ALTER TABLE quarantined_hash DROP CONSTRAINT quarantined_hash_pkey;
ALTER TABLE quarantined_hash ADD PRIMARY KEY (sha256, owner, scope);
ALTER TABLE quarantined_blob ADD COLUMN owner text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quarantined_blob ADD COLUMN scope text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quarantined_blob DROP CONSTRAINT quarantined_blob_pkey;
ALTER TABLE quarantined_blob ADD PRIMARY KEY (blob_id, owner, scope);
ALTER TABLE quarantine_change ADD COLUMN scope text COLLATE "C" NOT NULL DEFAULT '';

-- Other servers' media that were hidden before they were fetched need no row of their own any more.
DELETE FROM media WHERE remote AND state = 'tombstone' AND content_type = '' AND quarantined_by IS NOT NULL;
ALTER TABLE media DROP COLUMN protected, DROP COLUMN quarantined_by, DROP COLUMN quarantine_reason,
    DROP COLUMN held_by, DROP COLUMN hold_reason, DROP COLUMN pinned_by;

-- Who put media into the trash and may take them out: '' is the operator, else a homeserver; NULL: a retention policy.
ALTER TABLE media ADD COLUMN trashed_owner text COLLATE "C";

-- Whether we read the content of a claimed hash ourselves: it is a second copy then, and not what uploads refer to.
ALTER TABLE blob ADD COLUMN claim_checked boolean NOT NULL DEFAULT false;
CREATE INDEX blob_unchecked ON blob (size_bytes) WHERE sha256_state <> 'verified' AND NOT claim_checked
    AND parent_blob_id IS NULL;

-- Where a request came from, as far as it came over the network.
ALTER TABLE audit_log ADD COLUMN client_address text;

UPDATE schema_meta SET version = 8, min_compatible = 8;
"""

_PICKED = """(SELECT k.{column} FROM media_mark k WHERE k.server_name = media.server_name
        AND k.media_id = media.media_id AND k.kind = '{kind}' ORDER BY k.owner LIMIT 1)"""

DOWNGRADE = f"""
UPDATE schema_meta SET version = 7, min_compatible = 3;
ALTER TABLE audit_log DROP COLUMN client_address;
DROP INDEX blob_unchecked;
ALTER TABLE blob DROP COLUMN claim_checked;
ALTER TABLE media DROP COLUMN trashed_owner;
ALTER TABLE media ADD COLUMN protected boolean NOT NULL DEFAULT false, ADD COLUMN quarantined_by text,
    ADD COLUMN quarantine_reason text, ADD COLUMN held_by text, ADD COLUMN hold_reason text, ADD COLUMN pinned_by text;
INSERT INTO media (server_name, media_id, state, remote, content_type, created_ts, authenticated)
    SELECT DISTINCT server_name, media_id, 'tombstone', true, '', 0, true FROM media_mark WHERE kind = 'quarantine'
    ON CONFLICT DO NOTHING;
UPDATE media SET
    protected = EXISTS (SELECT FROM media_mark k WHERE k.server_name = media.server_name
        AND k.media_id = media.media_id AND k.kind = 'protection'),
    quarantined_by = {_PICKED.format(column="set_by", kind="quarantine")},
    quarantine_reason = {_PICKED.format(column="reason", kind="quarantine")},
    held_by = {_PICKED.format(column="set_by", kind="hold")},
    hold_reason = {_PICKED.format(column="reason", kind="hold")},
    pinned_by = {_PICKED.format(column="set_by", kind="pin")}
    WHERE (server_name, media_id) IN (SELECT server_name, media_id FROM media_mark);
ALTER TABLE quarantine_change DROP COLUMN scope;
DELETE FROM quarantined_hash q WHERE EXISTS (SELECT FROM quarantined_hash o
    WHERE o.sha256 = q.sha256 AND (o.owner, o.scope) < (q.owner, q.scope));
ALTER TABLE quarantined_hash DROP CONSTRAINT quarantined_hash_pkey;
ALTER TABLE quarantined_hash DROP COLUMN owner, DROP COLUMN scope, ADD PRIMARY KEY (sha256);
DELETE FROM quarantined_blob q WHERE EXISTS (SELECT FROM quarantined_blob o
    WHERE o.blob_id = q.blob_id AND (o.owner, o.scope) < (q.owner, q.scope));
ALTER TABLE quarantined_blob DROP CONSTRAINT quarantined_blob_pkey;
ALTER TABLE quarantined_blob DROP COLUMN owner, DROP COLUMN scope, ADD PRIMARY KEY (blob_id);
DROP TABLE media_mark;
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
