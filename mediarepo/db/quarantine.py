"""Quarantines content, and lifts quarantines."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mediarepo.db.audit import AuditTuple, homeservers_of, mxc_entries, write_entries, write_entry
from mediarepo.db.database import NOW_MS, Connection, Database
from mediarepo.db.media_marks import SET_ABOVE, folded, hidden_sql, mxc_columns, set_mark
from mediarepo.errors import ForbiddenError
from mediarepo.model.marks import SMALLEST_HIDDEN_BYTES, AdminAction, LeftOut, MarkKind, Outcome
from mediarepo.model.media_admin import Change, HiddenHash, HiddenServer
from mediarepo.model.mxc import Mxc, spellings

_CONCERNED = f"""SELECT k.server_name, k.media_id, coalesce(m.remote, true) AS remote, {hidden_sql("$7::text", media="k")} AS hidden
    FROM (SELECT s AS server_name, i AS media_id FROM unnest($1::text[], $2::text[]) AS n (s, i)
        UNION SELECT m.server_name, m.media_id FROM media m JOIN blob b USING (blob_id)
            WHERE b.sha256 = ANY($3::bytea[]) OR b.blob_id = ANY($4::bigint[])) k
        LEFT JOIN media m ON m.server_name = k.server_name AND m.media_id = k.media_id
        LEFT JOIN blob b ON b.blob_id = m.blob_id
    WHERE m.state IS DISTINCT FROM 'pending' AND ($5 = '' OR m.remote IS NOT FALSE OR m.server_name = $6)"""  # noqa: E501 - one condition

_NOTE_CHANGES = f"""INSERT INTO quarantine_change
        (viewer, change_id, server_name, media_id, quarantined, created_ts, scope)
    SELECT v.viewer, coalesce((SELECT max(c.change_id) FROM quarantine_change c WHERE c.viewer = v.viewer), 0)
            + row_number() OVER (PARTITION BY v.viewer ORDER BY n.place),
        n.s, n.i, $3, {NOW_MS}, CASE WHEN n.s = ANY($5::text[]) THEN '' ELSE $4 END
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (s, i, place), unnest($5::text[] || ''::text) AS v (viewer)
    WHERE v.viewer IN ('', n.s) OR (NOT n.s = ANY($5::text[]) AND $4 IN ('', v.viewer))"""


@dataclass(frozen=True, slots=True)
class _Contents:
    """What some media hold: hashes, told or computed, and blobs whose hash nobody here has computed."""

    hashes: list[bytes]
    unsure: list[int]


class QuarantineTable:
    """Quarantines media by address and by content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hide(self, mxcs: Sequence[Mxc], act: AdminAction, target: str, *, scopes: Sequence[str]) -> Outcome:
        """Quarantine media that are not protected, and for `scopes` all media with the same content.

        Unknown media are quarantined in advance, so that they are never fetched for those scopes.
        """
        async with self._database.transaction() as connection:
            spared = await _spared(connection, mxcs, act)
            chosen = [mxc for mxc in mxcs if mxc not in spared]
            contents = await _contents(connection, chosen)
            before = await _concerned(connection, chosen, contents, act, viewer=act.owner)
            await set_mark(connection, chosen, MarkKind.QUARANTINE, act)
            await _hide_hashes(connection, contents.hashes, act, scopes)
            await _hide_blobs(connection, contents.unsure, act)
            after = await _concerned(connection, chosen, contents, act, viewer=act.owner)
            changed = [mxc for mxc, is_hidden in after.items() if is_hidden and not before.get(mxc, True)]
            await _note(connection, changed, act, target, quarantined=True)
        return Outcome(len(changed), {LeftOut.PROTECTED: len(spared)} if spared else {})

    async def show(self, mxcs: Sequence[Mxc], act: AdminAction, target: str) -> Outcome:
        """Lift the actor's own quarantine of media and of equal content.

        The operator lifts others' quarantines where there is no own one. Raises ForbiddenError when only others
        quarantined the media.
        """
        async with self._database.transaction() as connection:
            contents = await _contents(connection, mxcs)
            owner: str | None = act.owner
            before = await _concerned(connection, mxcs, contents, act, viewer=act.owner)
            lifted = await _lift(connection, mxcs, contents, act.owner)
            if not lifted and act.by_operator:
                before = await _concerned(connection, mxcs, contents, act, viewer=None)
                owner = None
                await _lift(connection, mxcs, contents, None)
            after = await _concerned(connection, mxcs, contents, act, viewer=owner)
            changed = [mxc for mxc, is_hidden in after.items() if not is_hidden and before.get(mxc, False)]
            rest = sum(after.get(mxc, False) for mxc in mxcs)
            if rest and not lifted and not act.by_operator:
                raise ForbiddenError(SET_ABOVE)
            await _note(connection, changed, act, target, quarantined=False)
        return Outcome(len(changed), {LeftOut.STILL_IN_FORCE: rest} if rest else {})

    async def hide_hashes(
        self, hashes: Sequence[bytes], act: AdminAction, *, scopes: Sequence[str], owner: str | None = None
    ) -> int:
        """Quarantine content by SHA-256, stored or not; returns how many hashes are new.

        `owner` owns the rows in the actor's place: a scanner, whose own rows alone it lifts again.
        """
        async with self._database.transaction() as connection:
            contents = _Contents(list(hashes), [])
            before = await _concerned(connection, [], contents, act, viewer=act.owner)
            owning = act if owner is None else replace(act, owner=owner)
            new = await _hide_hashes(connection, hashes, owning, scopes)
            after = await _concerned(connection, [], contents, act, viewer=act.owner)
            changed = [mxc for mxc, is_hidden in after.items() if is_hidden and not before[mxc]]
            await _note_hashes(connection, hashes, new, changed, act, quarantined=True)
        return len(new)

    async def show_owned_hashes(self, hashes: Sequence[bytes], act: AdminAction, owner: str) -> int:
        """Lift what one owner has quarantined by hash, and nothing else; returns how many hashes were lifted."""
        async with self._database.transaction() as connection:
            contents = _Contents(list(hashes), [])
            before = await _concerned(connection, [], contents, act, viewer=act.owner)
            gone = await _show_hashes(connection, hashes, owner)
            after = await _concerned(connection, [], contents, act, viewer=act.owner)
            changed = [mxc for mxc, is_hidden in after.items() if not is_hidden and before[mxc]]
            await _note_hashes(connection, hashes, gone, changed, act, quarantined=False)
        return len(gone)

    async def show_hashes(self, hashes: Sequence[bytes], act: AdminAction) -> int:
        """Lift the quarantine of hashes, as `show` does; returns how many were lifted."""
        async with self._database.transaction() as connection:
            contents = _Contents(list(hashes), [])
            before = await _concerned(connection, [], contents, act, viewer=act.owner)
            owner: str | None = act.owner
            gone = await _show_hashes(connection, hashes, owner)
            if not gone and act.by_operator:
                owner = None
                before = await _concerned(connection, [], contents, act, viewer=owner)
                gone = await _show_hashes(connection, hashes, owner)
            after = await _concerned(connection, [], contents, act, viewer=owner)
            changed = [mxc for mxc, is_hidden in after.items() if not is_hidden and before[mxc]]
            await _note_hashes(connection, hashes, gone, changed, act, quarantined=False)
        return len(gone)

    async def hide_server(self, server_name: str, act: AdminAction) -> bool:
        """Quarantine all media of a server, stored or not; False when it was quarantined already."""
        async with self._database.transaction() as connection:
            tag = await connection.execute(
                f"""INSERT INTO quarantined_server_name (server_name, quarantined_by, reason, created_ts)
                    VALUES ($1, $2, $3, {NOW_MS}) ON CONFLICT DO NOTHING""",
                server_name,
                act.by,
                act.reason,
            )
            await write_entry(connection, act, server_name, int(tag == "INSERT 0 1"))
        return bool(tag == "INSERT 0 1")

    async def show_server(self, spellings: Collection[str], act: AdminAction) -> bool:
        """Lift the quarantine of a server, in any spelling; False when there was none."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "DELETE FROM quarantined_server_name WHERE server_name = ANY($1) RETURNING server_name", list(spellings)
            )
            for name in [row["server_name"] for row in rows] or [min(spellings)]:
                await write_entry(connection, act, name, int(bool(rows)))
        return bool(rows)

    async def servers(self) -> list[HiddenServer]:
        """Return the quarantined servers."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT server_name, quarantined_by, reason, created_ts FROM quarantined_server_name ORDER BY 1"
            )
        return [HiddenServer(*row.values()) for row in rows]

    async def hashes(self, after: bytes, limit: int) -> list[HiddenHash]:
        """Return quarantined hashes in order, after a given one; each once."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT DISTINCT ON (sha256) sha256, quarantined_by, reason, created_ts FROM quarantined_hash
                   WHERE sha256 > $1 ORDER BY sha256, owner, scope LIMIT $2""",
                after,
                limit,
            )
        return [HiddenHash(*row.values()) for row in rows]

    async def of_user(self, user_id: str, *, hidden_from: Sequence[str]) -> list[Mxc]:
        """Return a user's uploads, those at some homeservers excluded."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT server_name, media_id FROM media
                   WHERE uploaded_by = $1 AND NOT remote AND state IN ('ready', 'missing', 'trashed', 'pending')
                       AND NOT server_name = ANY($2::text[])""",
                user_id,
                list(hidden_from),
            )
        return [Mxc(row["server_name"], row["media_id"]) for row in rows]

    async def changes(self, after_id: int, limit: int, *, viewer: str) -> list[Change]:
        """Return quarantine changes as a homeserver sees them (OPERATOR: all), oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT change_id, server_name, media_id, quarantined FROM quarantine_change
                   WHERE viewer = $1 AND change_id > $2 ORDER BY change_id LIMIT $3""",
                viewer,
                after_id,
                limit,
            )
        return [Change(row["change_id"], Mxc(row["server_name"], row["media_id"]), row["quarantined"]) for row in rows]

    async def last_change(self, *, viewer: str) -> int:
        """Return the number of the newest change that `changes` would return, 0 when there is none."""
        row = await self._database.get(
            "SELECT coalesce(max(change_id), 0) FROM quarantine_change WHERE viewer = $1", viewer
        )
        return 0 if row is None else int(row[0])


async def _spared(connection: Connection, mxcs: Sequence[Mxc], act: AdminAction) -> set[Mxc]:
    """Name media that are protected against whoever acts: by the operator, or by a homeserver against homeservers.

    Media of a server that is spelled otherwise are hidden with them, so they are spared with them.
    """
    keys = {mxc: (spellings(mxc.server_name)[0], mxc.media_id) for mxc in mxcs}
    rows = await connection.fetch(
        """SELECT DISTINCT folded_name, media_id FROM media_mark
           WHERE kind = 'protection' AND (owner = '' OR owner = $3)
               AND (folded_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))""",
        [name for name, _ in keys.values()],
        [media_id for _, media_id in keys.values()],
        act.owner,
    )
    spared = {(row["folded_name"], row["media_id"]) for row in rows}
    return {mxc for mxc, key in keys.items() if key in spared}


async def _contents(connection: Connection, mxcs: Sequence[Mxc]) -> _Contents:
    """Read what media hold; its hash is not learnt, and it is not let go of, until this is through."""
    rows = await connection.fetch(
        """SELECT b.blob_id, b.sha256, b.sha256_state = 'verified' OR b.claim_checked AS sure FROM blob b
           WHERE b.size_bytes >= $3 AND b.blob_id IN (SELECT m.blob_id FROM media m
               WHERE (m.server_name, m.media_id) IN (SELECT * FROM unnest($1::text[], $2::text[])))
           ORDER BY b.blob_id FOR SHARE""",
        *mxc_columns(mxcs),
        SMALLEST_HIDDEN_BYTES,
    )
    hashes = sorted({row["sha256"] for row in rows if row["sha256"] is not None})
    return _Contents(hashes, sorted({row["blob_id"] for row in rows if not row["sure"]}))


async def _concerned(
    connection: Connection, mxcs: Sequence[Mxc], contents: _Contents, act: AdminAction, *, viewer: str | None
) -> dict[Mxc, bool]:
    """Say of everything within reach that is named, or has such content, whether it is hidden from a viewer."""
    rows = await connection.fetch(
        _CONCERNED, *mxc_columns(mxcs), contents.hashes, contents.unsure, act.owner, act.owner, viewer
    )
    return {Mxc(row["server_name"], row["media_id"]): row["hidden"] for row in rows}


async def _hide_hashes(
    connection: Connection, hashes: Sequence[bytes], act: AdminAction, scopes: Sequence[str]
) -> set[bytes]:
    rows = await connection.fetch(
        f"""INSERT INTO quarantined_hash (sha256, size_bytes, quarantined_by, reason, created_ts, owner, scope)
            SELECT DISTINCT h, (SELECT min(size_bytes) FROM blob b WHERE b.sha256 = h), $2::text, $3::text,
                {NOW_MS}, $4::text, s FROM unnest($1::bytea[]) AS h, unnest($5::text[]) AS s
            ORDER BY 1, 7 ON CONFLICT DO NOTHING RETURNING sha256""",
        list(hashes),
        act.by,
        act.reason,
        act.owner,
        list(scopes),
    )
    return {row["sha256"] for row in rows}


async def _hide_blobs(connection: Connection, blob_ids: Sequence[int], act: AdminAction) -> None:
    await connection.execute(
        f"""INSERT INTO quarantined_blob (blob_id, quarantined_by, reason, created_ts, owner, scope)
            SELECT b, $2, $3, {NOW_MS}, $4, $4 FROM unnest($1::bigint[]) AS b ORDER BY 1 ON CONFLICT DO NOTHING""",
        list(blob_ids),
        act.by,
        act.reason,
        act.owner,
    )


async def _show_hashes(connection: Connection, hashes: Sequence[bytes], owner: str | None) -> set[bytes]:
    rows = await connection.fetch(
        """DELETE FROM quarantined_hash WHERE sha256 = ANY($1::bytea[]) AND ($2::text IS NULL OR owner = $2)
           RETURNING sha256""",
        list(hashes),
        owner,
    )
    return {row["sha256"] for row in rows}


async def _lift(connection: Connection, mxcs: Sequence[Mxc], contents: _Contents, owner: str | None) -> bool:
    """Remove an owner's rows (None: everybody's) for media and their content; False when there were none."""
    hashes = await _show_hashes(connection, contents.hashes, owner)
    blobs = await connection.execute(
        """DELETE FROM quarantined_blob WHERE ($4::text IS NULL OR owner = $4) AND blob_id IN (
               SELECT blob_id FROM blob WHERE sha256 = ANY($3::bytea[])
               UNION SELECT blob_id FROM media
                   WHERE (server_name, media_id) IN (SELECT * FROM unnest($1::text[], $2::text[])))""",
        *mxc_columns(mxcs),
        contents.hashes,
        owner,
    )
    marks = await connection.execute(
        f"""DELETE FROM media_mark WHERE kind = 'quarantine' AND ($4::text IS NULL OR owner = $4)
                AND (folded_name, media_id) IN (
                    SELECT {folded("n.s")}, n.i FROM unnest($1::text[], $2::text[]) AS n (s, i)
                    UNION SELECT {folded("m.server_name")}, m.media_id FROM media m JOIN blob b USING (blob_id)
                        WHERE b.sha256 = ANY($3::bytea[]))""",
        *mxc_columns(mxcs),
        contents.hashes,
        owner,
    )
    return bool(hashes) or blobs != "DELETE 0" or marks != "DELETE 0"


async def _note(
    connection: Connection, changed: Sequence[Mxc], act: AdminAction, target: str, *, quarantined: bool
) -> None:
    """Write an act down: for those whom its target concerns, and for those whose own media it changed besides."""
    named = homeservers_of(act, target)
    own = {name for name in act.at if name not in named}
    entries: list[AuditTuple] = [
        (name, target, sum(mxc.server_name == name or mxc.server_name not in act.at for mxc in changed))
        for name in named
    ]
    entries += mxc_entries(act, [mxc for mxc in changed if mxc.server_name in own])
    await write_entries(connection, act, entries)
    await _note_changes(connection, changed, act, quarantined=quarantined)


async def _note_hashes(
    connection: Connection,
    hashes: Sequence[bytes],
    done: Collection[bytes],
    changed: Sequence[Mxc],
    act: AdminAction,
    *,
    quarantined: bool,
) -> None:
    """Write hashes down for the operator, and for each homeserver the media that it concerns."""
    entries: list[AuditTuple] = [(None, sha256.hex(), int(sha256 in done)) for sha256 in hashes]
    await write_entries(connection, act, entries + mxc_entries(act, changed))
    await _note_changes(connection, changed, act, quarantined=quarantined)


async def _note_changes(connection: Connection, changed: Sequence[Mxc], act: AdminAction, *, quarantined: bool) -> None:
    """Tell each homeserver, and the operator, what changed for them; each counts by itself.

    The lock keeps numbers in the order in which they become visible. It is taken last, so nobody waits for it long.
    """
    if changed:
        await connection.execute("LOCK TABLE quarantine_change IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute(_NOTE_CHANGES, *mxc_columns(changed), quarantined, act.owner, list(act.at))
