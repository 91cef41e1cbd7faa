"""Two sessions that change the same media, named in opposite orders, never wait for each other in a circle."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence

import pytest

from mediarepo.app.foundation import now_ms
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.quarantine import QuarantineTable
from mediarepo.db.trash import TrashTable
from mediarepo.model.marks import AdminAction
from mediarepo.model.mxc import Mxc
from tests.support.installation import SERVER_NAME, Installation

ROUNDS, MEDIA = 4, 150
ACT = AdminAction(by="@admin:x", owner="", action="test")
Change = Callable[[Installation, Sequence[Mxc]], Awaitable[object]]


async def put(own: Installation, mxcs: Sequence[Mxc]) -> None:
    await TrashTable(own.repository.foundation.database).put(mxcs, ACT)


async def put_unused(own: Installation, mxcs: Sequence[Mxc]) -> None:
    await TrashTable(own.repository.foundation.database).put_unused(mxcs, now_ms() + 1_000_000, ACT, "all")


async def empty(own: Installation, mxcs: Sequence[Mxc]) -> None:
    await TrashTable(own.repository.foundation.database).empty(mxcs, 0, ACT)


async def hide(own: Installation, mxcs: Sequence[Mxc]) -> None:
    await QuarantineTable(own.repository.foundation.database).hide(mxcs, ACT, "all", scopes=[""])


async def show(own: Installation, mxcs: Sequence[Mxc]) -> None:
    await QuarantineTable(own.repository.foundation.database).show(mxcs, ACT, "all")


async def delete(own: Installation, mxcs: Sequence[Mxc]) -> None:
    for mxc in mxcs[:20]:
        await DeletionTable(own.repository.foundation.database).delete(mxc)


CHANGES = [put, put_unused, empty, hide, show, delete]


async def many(own: Installation) -> list[Mxc]:
    """Make media, every second with the content of the one before."""
    contents = [secrets.token_bytes(100) for _ in range(MEDIA // 2)]
    await own.rows(
        """WITH b AS (INSERT INTO blob (store, object_key, size_bytes, sha256, sha256_state, created_ts)
               SELECT 'main', encode(sha256(c), 'hex'), 100, sha256(c), 'verified', 1 FROM unnest($1::bytea[]) AS c
               RETURNING blob_id, object_key)
           INSERT INTO media (server_name, media_id, state, remote, blob_id, content_type, authenticated, created_ts)
           SELECT $2, object_key || n, 'ready', false, blob_id, 'a/b', true, 1 FROM b, generate_series(1, 2) AS n""",
        contents,
        SERVER_NAME,
    )
    return [Mxc(SERVER_NAME, row[0]) for row in await own.rows("SELECT media_id FROM media WHERE state = 'ready'")]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(CHANGES, 2)))
async def test_no_two_changes_wait_for_each_other_in_a_circle(own: Installation, one: Change, other: Change) -> None:
    for _ in range(ROUNDS):
        mxcs = await many(own)
        if empty in {one, other}:
            await put(own, mxcs[::2])
        changes = one(own, mxcs), other(own, mxcs[::-1]), one(own, mxcs[1:]), other(own, mxcs[:0:-1])
        failures = [failure for failure in await asyncio.gather(*changes, return_exceptions=True) if failure]
        assert failures == []
