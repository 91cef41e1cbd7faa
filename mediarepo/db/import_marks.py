"""Quarantine and protection as another repository had them: they belong to the homeserver they come from."""

from collections.abc import Sequence

from mediarepo.db.clock import NOW_MS
from mediarepo.db.connections import Connection
from mediarepo.model.import_items import Entry
from mediarepo.model.imports import SourceMedia
from mediarepo.model.marks import OPERATOR, MarkKind

_NOTE = "(SELECT 'imported from ' || name FROM import_source WHERE source_id = $1)"
_INSERT = f"""INSERT INTO media_mark (server_name, media_id, kind, owner, scope, set_by, reason, created_ts)
    SELECT e.server_name, e.media_id, e.kind, e.owner, e.owner, e.set_by, {_NOTE}, {NOW_MS}
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS e (server_name, media_id, kind, owner, set_by)
    ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING"""  # noqa: S608 - static text

Mark = tuple[str, str, MarkKind, str, str]
"""Server name, media id, kind, owner, who set it."""


def owner_of(media: SourceMedia, own_server_names: frozenset[str]) -> str:
    """Say whose an imported mark is: the homeserver's whose media it is, or whose admin set it; else the operator's."""
    if media.is_local:
        return media.server_name
    domain = (media.quarantined_by or "").partition(":")[2]
    if domain in own_server_names:
        return domain
    return next(iter(own_server_names)) if len(own_server_names) == 1 else OPERATOR


def marks_of(entries: Sequence[Entry], own_server_names: frozenset[str]) -> list[Mark]:
    """List the marks that rows of a source have."""
    found: list[Mark] = []
    for media in (entry.media for entry in entries):
        owner = owner_of(media, own_server_names)
        if media.quarantined_by is not None:
            found.append((media.server_name, media.media_id, MarkKind.QUARANTINE, owner, media.quarantined_by))
        if media.protected:
            found.append((media.server_name, media.media_id, MarkKind.PROTECTION, owner, media.user_id or "imported"))
    return found


async def insert_marks(connection: Connection, source_id: int, marks: Sequence[Mark]) -> None:
    """Set marks, beside what others set here."""
    if marks:
        await connection.execute(_INSERT, source_id, *(list(column) for column in zip(*marks, strict=True)))


async def refresh_marks(connection: Connection, source_id: int, entries: Sequence[Entry], marks: list[Mark]) -> None:
    """Carry over what has changed at the source since the ledger's line; quarantine wherever media came from."""
    media = [entry.media for entry in entries]
    rows = await connection.fetch(
        """SELECT e.server_name, e.media_id, m.import_source_id = $1 AS is_ours,
               i.media_id IS NULL OR i.quarantined_by IS DISTINCT FROM e.quarantined_by AS rehidden,
               i.media_id IS NOT NULL AND i.protected <> e.protected AS reprotected
           FROM unnest($2::text[], $3::text[], $4::boolean[], $5::text[])
                   AS e (server_name, media_id, protected, quarantined_by)
               JOIN media m ON m.server_name = e.server_name AND m.media_id = e.media_id
               LEFT JOIN import_item i
                   ON i.source_id = $1 AND i.server_name = e.server_name AND i.media_id = e.media_id""",
        source_id,
        [one.server_name for one in media],
        [one.media_id for one in media],
        [one.protected for one in media],
        [one.quarantined_by for one in media],
    )
    keys = [(row["server_name"], row["media_id"]) for row in rows]
    ours = [row["is_ours"] is True for row in rows]
    rehidden = {key for key, row in zip(keys, rows, strict=True) if row["rehidden"]}
    reprotected = {key for key, row, is_ours in zip(keys, rows, ours, strict=True) if is_ours and row["reprotected"]}
    wanted = {MarkKind.QUARANTINE: rehidden, MarkKind.PROTECTION: reprotected}
    for kind, some in wanted.items():
        await _remove(connection, source_id, kind, some)
    await insert_marks(connection, source_id, [mark for mark in marks if mark[:2] in wanted[mark[2]]])


async def _remove(connection: Connection, source_id: int, kind: MarkKind, keys: set[tuple[str, str]]) -> None:
    """Take back what was imported before."""
    if keys:
        await connection.execute(
            f"""DELETE FROM media_mark WHERE kind = $2 AND reason = {_NOTE}
                    AND (server_name, media_id) IN (SELECT * FROM unnest($3::text[], $4::text[]))""",  # noqa: S608 - static text
            source_id,
            kind,
            [name for name, _ in keys],
            [media_id for _, media_id in keys],
        )


async def forget_marks(connection: Connection, source_id: int, server_names: list[str], media_ids: list[str]) -> None:
    """Take back what was imported for some media."""
    await connection.execute(
        f"""DELETE FROM media_mark WHERE reason = {_NOTE}
                AND (server_name, media_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))""",  # noqa: S608 - static text
        source_id,
        server_names,
        media_ids,
    )
