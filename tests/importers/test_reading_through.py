import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediarepo.cli.administration import operator
from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from mediarepo.model.mxc import Mxc
from tests.importers.test_moving_in import (
    HIDDEN,
    NAME,
    ODD,
    PENDING,
    PHOTO,
    PREVIEWS,
    SAME_PHOTO,
    add,
    change,
    file_of,
    rows_of,
    synapse,
)
from tests.support.installation import fresh_name
from tests.support.moving_in import MovingIn, moving_in

__all__ = ["synapse"]
OWNER = f"@_bridge_owner:{NAME}"


@pytest.fixture
async def moving(postgres: EmbeddedPostgres, s3: EmbeddedS3, synapse: Path, tmp_path: Path) -> AsyncIterator[MovingIn]:
    """A mediarepo in front of which the proxy was switched before anything was imported."""
    source = {"kind": "synapse", "paths": [str(synapse / "homeserver.yaml")], "read_through": True, "remote": "all"}
    async with moving_in(postgres, s3, tmp_path, NAME, source) as moving:
        yield moving


async def test_everything_is_served_before_it_was_imported(moving: MovingIn, synapse: Path) -> None:
    for media_id, row in rows_of(synapse).items():
        answer = await moving.get(NAME, media_id)
        if row["quarantined_by"] or media_id in {ODD, *PREVIEWS}:
            assert answer.status == 404, media_id
        elif media_id == PENDING:
            assert answer.status == 504
        else:
            assert (answer.status, answer.body) == (200, file_of(synapse, media_id).read_bytes())
            assert answer.headers["Content-Type"] == row["media_type"]


async def test_what_was_asked_for_is_imported_and_a_run_brings_the_rest(moving: MovingIn) -> None:
    await moving.get(NAME, PHOTO)
    await moving.get(NAME, HIDDEN)
    asked = set(await moving.media())
    figures = await moving.run()
    items, _, summary = await moving.report()

    assert asked == {PHOTO, HIDDEN}
    assert (figures["unchanged"], summary["balances"], items[PHOTO]["mode"]) == (2, True, "upload")
    assert await moving.own.object_keys() == {
        row["object_key"] for row in (await moving.media()).values() if row["store"]
    }


async def test_media_that_come_later_are_accounted_for(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    add(synapse, "latecomerAAA", b"late")
    answer = await moving.get(NAME, "latecomerAAA")
    _, _, between = await moving.report()
    await moving.run()
    _, _, after = await moving.report()

    assert (answer.status, answer.body) == (200, b"late")
    assert (between["rows"], between["since"], between["balances"]) == (22, 1, True)
    assert (after["rows"], after["since"], after["balances"]) == (23, 0, True)


async def test_many_who_ask_at_once_cause_one_look(moving: MovingIn, synapse: Path) -> None:
    data = bytes(range(256)) * 1000
    add(synapse, "popularAAAAA", data)
    answers = await asyncio.gather(*(moving.get(NAME, "popularAAAAA") for _ in range(50)))

    assert {(answer.status, answer.body) for answer in answers} == {(200, data)}
    assert len(await moving.own.object_keys()) == 1


async def test_an_upload_begun_there_is_completed_here(moving: MovingIn, synapse: Path) -> None:
    change(synapse, "UPDATE local_media_repository SET user_id = ? WHERE media_id = ?", OWNER, PENDING)
    path = f"/_matrix/media/v3/upload/{NAME}/{PENDING}"
    stranger = await moving.own.request("PUT", f"{path}?user_id=@_bridge_x:{NAME}", data=b"not mine")
    owner = await moving.own.request(
        "PUT", f"{path}?user_id={OWNER}", data=b"mine", headers={"Content-Type": "text/plain"}
    )
    again = await moving.own.request("PUT", f"{path}?user_id={OWNER}", data=b"again")
    answer = await moving.get(NAME, PENDING)
    await moving.run()

    assert (stranger.status, owner.status, again.status) == (403, 200, 409)
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"mine", "text/plain")
    assert (await moving.get(NAME, PENDING)).body == b"mine"


async def test_an_upload_that_ends_there_reaches_those_who_wait_here(moving: MovingIn, synapse: Path) -> None:
    first = await moving.get(NAME, PENDING)
    waiting = asyncio.create_task(moving.own.get(f"{moving.own.download_path(PENDING)}?timeout_ms=15000"))
    await asyncio.sleep(0.3)
    file = file_of(synapse, PENDING)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"there")
    change(
        synapse,
        "UPDATE local_media_repository SET media_length = 5, media_type = 'text/plain' WHERE media_id = ?",
        PENDING,
    )
    answer = await waiting

    assert (first.status, answer.status, answer.body) == (504, 200, b"there")


async def test_thumbnails_are_made_of_media_that_have_not_moved_in_yet(moving: MovingIn) -> None:
    answer = await moving.own.get(moving.own.thumbnail_path(PHOTO))

    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")


async def test_the_unauthenticated_paths_are_as_frozen_as_they_were_there(moving: MovingIn, synapse: Path) -> None:
    change(synapse, "UPDATE local_media_repository SET authenticated = 0 WHERE media_id = ?", PHOTO)

    assert (await moving.legacy(NAME, PHOTO)).body == file_of(synapse, PHOTO).read_bytes()
    assert (await moving.legacy(NAME, SAME_PHOTO)).status == 404


async def test_other_servers_media_are_had_from_there_by_users_alone(moving: MovingIn, synapse: Path) -> None:
    data, name = b"from afar", "farAwayFile"
    file = synapse / "media_store/remote_content/far.test" / name[:2] / name[2:4] / name[4:]
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    change(
        synapse,
        "INSERT INTO remote_media_cache (media_origin, media_id, media_type, created_ts, media_length, filesystem_id, "
        "authenticated) VALUES ('far.test', 'afar', 'text/plain', 1, ?, ?, 0)",
        len(data),
        name,
    )
    unauthenticated = await moving.legacy("far.test", "afar")
    rows = await moving.own.value("SELECT count(*) FROM media")
    by_user = await moving.get("far.test", "afar")

    assert (unauthenticated.status, rows) == (404, 0)
    assert (by_user.status, by_user.body) == (200, data)
    assert (await moving.media())["afar"]["remote"]


async def test_an_outage_there_is_an_outage_here_and_never_a_loss(moving: MovingIn, synapse: Path) -> None:
    database = synapse / "homeserver.db"
    database.rename(synapse / "elsewhere.db")
    during = await moving.get(NAME, PHOTO)
    (synapse / "elsewhere.db").rename(database)
    shutil.move(synapse / "media_store", synapse / "not-mounted")
    unmounted = await moving.get(NAME, PHOTO)
    shutil.move(synapse / "not-mounted", synapse / "media_store")
    await asyncio.sleep(1)
    after = await moving.get(NAME, PHOTO)

    assert (during.status, unmounted.status, after.status) == (503, 503, 200)


async def test_bytes_that_are_not_what_the_row_says_are_not_served(moving: MovingIn, synapse: Path) -> None:
    data = file_of(synapse, PHOTO).read_bytes()
    file_of(synapse, PHOTO).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    answer = await moving.get(NAME, PHOTO)
    items, _, _ = await moving.report()

    assert answer.status == 404
    assert items[PHOTO]["reason"].startswith("hash")


async def test_nothing_is_looked_up_after_the_end(moving: MovingIn, synapse: Path) -> None:
    await moving.run()
    code, _, errors = await moving.command("finalize")
    add(synapse, "toolateAAAAA", b"too late")

    assert code == 0, errors
    assert (await moving.get(NAME, "toolateAAAAA")).status == 404
    assert (await moving.get(NAME, PHOTO)).status == 200


async def test_large_media_pass_through_in_parts(moving: MovingIn, synapse: Path) -> None:
    data = hashlib.sha256(fresh_name().encode()).digest() * 700_000
    add(synapse, "voluminousAA", data)

    assert (await moving.get(NAME, "voluminousAA")).body == data
    assert await moving.own.value("SELECT count(*) FROM multipart_intent WHERE upload_id IS NOT NULL") == 0


async def test_keys_that_a_sweep_has_claimed_are_done_without(moving: MovingIn) -> None:
    first = await moving.get(NAME, PHOTO)
    announced = await moving.own.value("SELECT count(*) FROM multipart_intent")
    await moving.own.rows("DELETE FROM multipart_intent")
    second = await moving.get(NAME, "short5")

    assert announced > 0
    assert (first.status, second.status) == (200, 200)


@pytest.mark.parametrize("by_admin", [True, False])
async def test_what_is_hidden_while_it_is_read_through_is_hidden_from_then_on(
    moving: MovingIn, synapse: Path, *, by_admin: bool
) -> None:
    quarantine, admin = moving.own.repository.administration.quarantine, operator(moving.own.settings)
    for number in range(25):
        mxc = Mxc(NAME, f"racing{number:02}AAAA")
        add(synapse, mxc.media_id, b"racing %d" % number)
        act = quarantine.authorization.admin_action(admin, "quarantine")
        hiding = quarantine.hide(mxc, admin) if by_admin else quarantine.table.hide([mxc], act, str(mxc), scopes=[""])
        await asyncio.gather(*(moving.get(NAME, mxc.media_id) for _ in range(2)), hiding)
        await moving.own.repository.foundation.invalidation.settle()
        answers = [await moving.get(NAME, mxc.media_id), await moving.legacy(NAME, mxc.media_id)]
        run = asyncio.create_task(moving.run()) if number % 10 == 0 else None
        answers += await asyncio.gather(*(moving.get(NAME, mxc.media_id) for _ in range(3)))
        if run is not None:
            await run
        answers.append(await moving.get(NAME, mxc.media_id))

        assert {answer.status for answer in answers} == {404}
