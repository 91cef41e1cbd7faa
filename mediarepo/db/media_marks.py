"""Marks on media: what somebody wants of them, who may lift that, and whom a quarantine hides them from.

Media are hidden by their address, by their content's hash, by their blob while the hash is not known for certain, and
with their whole server. Each of these rows but the last has a scope: all, or one homeserver. The fragments here are
for queries that name media `m` (and their blob `b`); own media are judged by their own homeserver's rows, other
servers' media by those of the homeserver whose user looks.
"""

from collections.abc import Sequence

from mediarepo.db.audit import write_entry
from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.errors import ForbiddenError
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES, AdminAction, LeftOut, MarkKind, Outcome
from mediarepo.model.mxc import Mxc

SET_ABOVE = "the operator, or a homeserver that shares this, has set it: only they, or the operator, may lift it"

_OF_CONTENT = f"q.sha256 = b.sha256 AND b.size_bytes >= {SMALLEST_HIDDEN_BYTES}"
_KEY = "{0}.server_name = {1}.server_name AND {0}.media_id = {1}.media_id AND {0}.kind = '{2}'"


def visible_to_sql(row: str, viewer: str | None = None, *, media: str = "m") -> str:
    """Return the SQL condition that a row applies to media: for all, for their own homeserver, or for the viewer's.

    `viewer` is an SQL expression of a homeserver's name; NULL in it, or None, stands for all homeservers together.
    """
    for_viewer = "true" if viewer is None else f"({viewer} IS NULL OR {row}.scope = {viewer})"
    return f"({row}.scope IN ('', {media}.server_name) OR (m.remote IS NOT FALSE AND {for_viewer}))"


def _spared(row: str, viewer: str | None, media: str) -> str:
    """Say that media are protected against a row: by the operator, or by a homeserver that it counts for."""
    viewer = viewer or "NULL::text"
    return f"is_spared({media}.server_name, {media}.media_id, m.remote IS NOT FALSE, {row}.owner, {viewer})"


def folded(server_name: str) -> str:
    """Return a server's name as `media_mark.folded_name` does; see `mediarepo.model.mxc.spellings`."""
    return f"regexp_replace(lower({server_name}), '\\.+(?=(:[0-9]*)?$)', '')"


def _hiding(viewer: str | None, media: str) -> dict[str, str]:
    """Return by table which of its rows `q` hide media from the viewer: the only definition of quarantine.

    By address, however the server is spelled; by content, unless the media are protected; by the whole server.
    """
    visible = visible_to_sql("q", viewer, media=media)
    spared = _spared("q", viewer, media)
    return {
        "media_mark": f"""q.folded_name = {folded(f"{media}.server_name")} AND q.media_id = {media}.media_id
            AND q.kind = 'quarantine' AND {visible}""",
        "quarantined_hash": f"{_OF_CONTENT} AND {visible} AND NOT {spared}",
        "quarantined_blob": f"q.blob_id = m.blob_id AND {visible} AND NOT {spared}",
        "quarantined_server_name": of_server_sql("q", f"{media}.server_name"),
    }


def hidden_sql(viewer: str | None = None, *, media: str = "m") -> str:
    """Return the SQL condition that media are quarantined, in any way, for the viewer."""
    found = (f"EXISTS (SELECT FROM {table} q WHERE {rows})" for table, rows in _hiding(viewer, media).items())
    return f"({' OR '.join(found)})"


def scopes_hidden_from_sql(media: str) -> str:
    """Return the SQL query of the homeservers from whose users media are quarantined, '' for all of them."""
    scopes = dict.fromkeys(_HIDDEN_BY, "q.scope") | {"quarantined_server_name": "''"}
    found = (f"SELECT {scopes[table]} FROM {table} q WHERE {rows}" for table, rows in _hiding("q.scope", media).items())
    return " UNION ".join(found)


def of_server_sql(row: str, server_name: str) -> str:
    """Return the SQL condition that a hidden server's row matches a server, in any spelling."""
    name = folded(server_name)
    return f"{row}.server_name IN ({server_name}, {name}, regexp_replace({name}, ':[0-9]*$', ''))"


def hash_unverified_sql(viewer: str, *, media: str = "m") -> str:
    """Return the SQL condition that content with an unverified hash may be quarantined, for the viewer."""
    return f"""(b.sha256_state <> 'verified' AND NOT b.claim_checked AND b.size_bytes >= {SMALLEST_HIDDEN_BYTES}
        AND may_be_hidden({media}.server_name, {media}.media_id, m.remote IS NOT FALSE, b.size_bytes, {viewer}))"""


def any_of_length(size_bytes: str) -> str:
    """Return the SQL condition that some quarantined content has this length, or an unknown one; two index lookups."""
    return f"""((SELECT min(scope) FROM quarantined_hash WHERE size_bytes = {size_bytes}) IS NOT NULL
        OR (SELECT min(scope) FROM quarantined_hash WHERE size_bytes IS NULL) IS NOT NULL)"""


_HIDDEN_BY = {
    "media_mark": ("q.set_by", "q.owner"),
    "quarantined_hash": ("q.quarantined_by", "q.owner"),
    "quarantined_blob": ("q.quarantined_by", "q.owner"),
    "quarantined_server_name": ("q.quarantined_by", "q.server_name"),
}
"""Who quarantined media, and which of several rows says so, by table."""


def quarantined_by_sql(viewer: str | None = None) -> str:
    """Return the SQL expression of who quarantined media, in any way; NULL when nobody did."""
    hiding = _hiding(viewer, "m")
    found = (
        f"(SELECT {name} FROM {table} q WHERE {hiding[table]} ORDER BY {order} LIMIT 1)"
        for table, (name, order) in _HIDDEN_BY.items()
    )
    return f"coalesce({', '.join(found)})"


def marked_by_sql(kind: MarkKind, viewer: str | None = None) -> str:
    """Return the SQL expression of who set a mark; NULL when nobody did."""
    return f"""(SELECT k.set_by FROM media_mark k WHERE {_KEY.format("k", "m", kind)} AND {visible_to_sql("k", viewer)}
        ORDER BY k.owner LIMIT 1)"""


def marked_sql(kind: MarkKind, *, media: str = "m") -> str:
    """Return the SQL condition that a mark is set."""
    return f"EXISTS (SELECT FROM media_mark k WHERE {_KEY.format('k', media, kind)})"


async def held(connection: Connection, mxcs: Sequence[Mxc]) -> set[Mxc]:
    """Return the media under a legal hold; with their rows locked, every acknowledged hold is seen."""
    rows = await connection.fetch(
        """SELECT DISTINCT server_name, media_id FROM media_mark
           WHERE kind = 'hold' AND (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
        *mxc_columns(mxcs),
    )
    return {Mxc(row["server_name"], row["media_id"]) for row in rows}


async def set_mark(connection: Connection, mxcs: Sequence[Mxc], kind: MarkKind, act: AdminAction) -> None:
    """Set marks owned by the actor; existing marks stay unchanged."""
    await connection.execute(
        f"""INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
            SELECT s, i, $3, $4, $4, $5, $6, {NOW_MS} FROM unnest($1::text[], $2::text[]) AS n (s, i)
            ORDER BY 1, 2 ON CONFLICT DO NOTHING""",
        *mxc_columns(mxcs),
        kind,
        act.owner,
        act.by,
        act.reason,
    )


async def hide_as_hash(connection: Connection, blob_id: int, sha256: bytes) -> bool:
    """Quarantine content by its now known hash, as its blob was; False when it was not."""
    await connection.execute(
        """INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, reason, created_ts, owner, scope)
           SELECT $2, b.size_bytes, q.quarantined_by, q.reason, q.created_ts, q.owner, q.scope
           FROM quarantined_blob q JOIN blob b USING (blob_id)
           WHERE blob_id = $1 AND b.size_bytes >= $3 ORDER BY q.owner, q.scope ON CONFLICT DO NOTHING""",
        blob_id,
        sha256,
        SMALLEST_HIDDEN_BYTES,
    )
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM quarantined_blob WHERE blob_id = $1)", blob_id))


def mxc_columns(mxcs: Sequence[Mxc]) -> tuple[list[str], list[str]]:
    """Split addresses into columns for unnest()."""
    return [mxc.server_name for mxc in mxcs], [mxc.media_id for mxc in mxcs]


class MarkTable:
    """Sets and lifts protection, legal holds and pins, each in one transaction with its line in the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, mxc: Mxc, kind: MarkKind, act: AdminAction) -> Outcome:
        """Set a mark on existing media; the marks of others stay."""
        async with self._database.transaction() as connection:
            known = await connection.fetchval(
                "SELECT true FROM media WHERE server_name = $1 AND media_id = $2 AND state <> 'tombstone' FOR UPDATE",
                mxc.server_name,
                mxc.media_id,
            )
            if known:
                await set_mark(connection, [mxc], kind, act)
            outcome = Outcome(1) if known else Outcome(0, {LeftOut.UNKNOWN: 1})
            await write_entry(connection, act, str(mxc), outcome.affected)
        return outcome

    async def lift(self, mxc: Mxc, kind: MarkKind, act: AdminAction) -> Outcome:
        """Lift the actor's own mark; the operator lifts others' marks where there is no own one.

        Raises ForbiddenError when only the operator set one, and somebody else asks.
        """
        async with self._database.transaction() as connection:
            await connection.execute(
                "SELECT FROM media WHERE server_name = $1 AND media_id = $2 FOR UPDATE", mxc.server_name, mxc.media_id
            )
            affected = await self._lift(connection, mxc, kind, act.owner)
            if not affected and act.by_operator:
                affected = await self._lift(connection, mxc, kind, None)
            rest = await connection.fetchval(
                """SELECT count(*) FROM media_mark k JOIN media m USING (server_name, media_id)
                   WHERE k.server_name = $1 AND k.media_id = $2 AND k.kind = $3
                       AND ($4 = '' OR k.owner IN ('', m.server_name))""",
                mxc.server_name,
                mxc.media_id,
                kind,
                act.owner,
            )
            if rest and not affected and not act.by_operator:
                raise ForbiddenError(SET_ABOVE)
            await write_entry(connection, act, str(mxc), int(affected > 0))
        return Outcome(int(affected > 0), {LeftOut.STILL_IN_FORCE: 1} if rest else {})

    @staticmethod
    async def _lift(connection: Connection, mxc: Mxc, kind: MarkKind, owner: str | None) -> int:
        tag = await connection.execute(
            """DELETE FROM media_mark WHERE server_name = $1 AND media_id = $2 AND kind = $3
                   AND ($4::text IS NULL OR owner = $4)""",
            mxc.server_name,
            mxc.media_id,
            kind,
            owner,
        )
        return int(tag.rpartition(" ")[2])
