import asyncio
import hashlib
import secrets
from dataclasses import replace

import pytest

from mediarepo.db.database import LeaseLostError
from mediarepo.db.deletion import DeletionTable
from mediarepo.db.media import MediaTable
from mediarepo.db.publishing import PublishTable
from mediarepo.db.tasks import Leases
from mediarepo.model.media import Media, MediaState, NewMedia
from mediarepo.model.mxc import Mxc
from mediarepo.model.tasks import Lease
from tests.faults.test_races import GRACE_MS, stored, until_blocked
from tests.support.installation import Installation

ELSEWHERE = "elsewhere.example"


def leases_of(own: Installation) -> Leases:
    return Leases(own.repository.foundation.database)


async def fetched(own: Installation, mxc: Mxc, data: bytes) -> None:
    """Publish what a fetch brought, as its own lease allows."""
    lease = await leases_of(own).acquire(f"fetch {mxc}", 60_000)
    assert lease is not None
    publishing = PublishTable(own.repository.foundation.database, GRACE_MS)
    await publishing.publish(remote(mxc, lease), await stored(own, data))


def remote(mxc: Mxc, lease: Lease) -> NewMedia:
    return NewMedia(
        mxc=mxc,
        content_type="a/b",
        upload_name=None,
        uploaded_by=None,
        authenticated=True,
        remote=True,
        created_ts=1_700_000_000_000,
        lease=lease,
    )


async def read(own: Installation, mxc: Mxc) -> Media:
    media = await MediaTable(own.repository.foundation.database).get(mxc, ELSEWHERE)
    assert media is not None
    return media


async def lose(own: Installation, mxc: Mxc) -> None:
    blob = (await read(own, mxc)).blob
    assert blob is not None
    await MediaTable(own.repository.foundation.database).mark_missing(blob)
    assert (await read(own, mxc)).state is MediaState.MISSING


def somewhere() -> Mxc:
    return Mxc(ELSEWHERE, secrets.token_hex(8))


async def test_lost_media_of_another_server_get_the_same_bytes_back_as_the_same_revision(own: Installation) -> None:
    mxc, data = somewhere(), secrets.token_bytes(100)
    await fetched(own, mxc, data)
    before = await read(own, mxc)
    await lose(own, mxc)

    await fetched(own, mxc, data)
    after = await read(own, mxc)

    assert (after.state, after.revision, after.created_ts) == (MediaState.READY, before.revision, before.created_ts)
    assert after.blob != before.blob
    assert await own.value("SELECT count(*) FROM blob") == 1
    assert await own.value("SELECT count(*) FROM object_deletion") == 1


async def test_other_bytes_than_before_are_another_revision(own: Installation) -> None:
    mxc = somewhere()
    await fetched(own, mxc, secrets.token_bytes(100))
    before = await read(own, mxc)
    await lose(own, mxc)

    await fetched(own, mxc, secrets.token_bytes(100))

    assert (await read(own, mxc)).revision == before.revision + 1


async def test_a_second_fetch_of_what_is_there_changes_nothing_and_leaves_nothing(own: Installation) -> None:
    mxc, data = somewhere(), secrets.token_bytes(100)
    await fetched(own, mxc, data)
    before = await read(own, mxc)

    await fetched(own, mxc, secrets.token_bytes(100))
    await own.repository.sweeps.outbox.drain()

    assert await read(own, mxc) == before
    assert before.blob is not None
    assert await own.object_keys() == {before.blob.object_key}


async def test_deleted_media_of_another_server_do_not_come_back_by_a_fetch_that_was_under_way(
    own: Installation,
) -> None:
    mxc = somewhere()
    await fetched(own, mxc, secrets.token_bytes(100))
    await DeletionTable(own.repository.foundation.database).delete(mxc)

    await fetched(own, mxc, secrets.token_bytes(100))
    await own.repository.sweeps.outbox.drain()

    assert (await read(own, mxc)).state is MediaState.TOMBSTONE
    assert await own.object_keys() == set()


async def test_who_has_lost_the_lease_publishes_nothing(own: Installation) -> None:
    mxc, leases = somewhere(), leases_of(own)
    late = await leases.acquire(f"fetch {mxc}", 0)
    assert late is not None
    while (successor := await leases.acquire(f"fetch {mxc}", 60_000)) is None:
        continue
    publishing = PublishTable(own.repository.foundation.database, GRACE_MS)

    with pytest.raises(LeaseLostError):
        await publishing.publish(remote(mxc, late), await stored(own, b"late"))
    await publishing.publish(remote(mxc, successor), await stored(own, b"in time"))

    assert successor.fence > late.fence
    assert (await own.rows("SELECT size_bytes FROM blob"))[0][0] == len(b"in time")
    assert not await leases.renew(successor, 1000)


async def test_a_lease_is_one_holders_until_it_is_released_or_runs_out(own: Installation) -> None:
    leases = leases_of(own)
    first = await leases.acquire("work", 60_000)
    assert first is not None

    assert await leases.acquire("work", 60_000) is None
    assert await leases.renew(first, 60_000)
    assert not await leases.renew(replace(first, fence=first.fence + 1), 60_000)
    await leases.release(first)
    second = await leases.acquire("work", 60_000)

    assert second is not None
    assert second.fence > first.fence


async def test_a_second_fetch_and_a_deletion_of_the_same_media_wait_for_each_other_in_one_order(
    own: Installation,
) -> None:
    mxc, data = somewhere(), secrets.token_bytes(100)
    await fetched(own, mxc, data)
    lease = await leases_of(own).acquire(f"fetch {mxc}", 60_000)
    assert lease is not None
    found, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        found.set()
        await go_on.wait()

    publishing = PublishTable(own.repository.foundation.database, GRACE_MS, on_lock=hold)
    sha256 = hashlib.sha256(data).digest()
    linking = asyncio.create_task(publishing.link(remote(mxc, lease), store="main", sha256=sha256))
    await found.wait()
    deletion_table = asyncio.create_task(DeletionTable(own.repository.foundation.database).delete(mxc))
    await until_blocked(own)
    go_on.set()

    assert await linking
    assert await deletion_table
    assert (await read(own, mxc)).state is MediaState.TOMBSTONE
    assert await own.value("SELECT count(*) FROM blob") == 0
